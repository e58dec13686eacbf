import { createServer, type AddressInfo, type Socket } from 'node:net'

/** One request as it arrived, byte for byte (latin-1), and where its header and body are in it. */
export type Arrived = { readonly text: string; readonly head: string; readonly body: string; readonly target: string }

/** What to say to a request, and what to do with the connection afterwards. */
export type Script = { readonly bytes: string; readonly ending: 'stay' | 'close' | 'reset' }

export type ScriptedServer = {
  readonly authority: string
  readonly arrived: Arrived[]
  /** What came and was no well-formed request by a strict reading; must stay empty. */
  readonly garbled: string[]
  close(): Promise<void>
}

/**
 * A server that records every byte and answers with any bytes: nothing of node's HTTP on this side. It reads requests by
 * the letter of RFC 9112 and complains (`garbled`) about anything else.
 */
export async function scriptedServer(script: (arrived: Arrived) => Script): Promise<ScriptedServer> {
  const arrived: Arrived[] = []
  const garbled: string[] = []
  const sockets = new Set<Socket>()
  const server = createServer({ noDelay: true }, (socket) => {
    let text = ''
    sockets.add(socket)
    socket.on('error', () => socket.destroy())
    socket.on('close', () => sockets.delete(socket))
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1')
      for (let one = read(text); one !== 'more'; one = read(text)) {
        if (one === 'garbled') {
          garbled.push(text)
          return void socket.destroy()
        }
        text = text.slice(one.text.length)
        arrived.push(one)
        say(socket, script(one))
      }
      return undefined
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    authority: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    arrived,
    garbled,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        for (const socket of sockets) socket.destroy()
      })
  }
}

function say(socket: Socket, { bytes, ending }: Script): void {
  const after = (): void => {
    if (ending === 'reset') socket.resetAndDestroy()
    else if (ending === 'close') socket.end()
  }
  if (bytes === '') after()
  else socket.write(Buffer.from(bytes, 'latin1'), after)
}

const FIELD = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[ \t]*(?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?[ \t]*$/

function read(text: string): Arrived | 'more' | 'garbled' {
  const end = text.indexOf('\r\n\r\n')
  if (end === -1) return 'more'
  const head = text.slice(0, end + 2)
  const [line = '', ...fields] = text.slice(0, end).split('\r\n')
  const [, target] = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+ (\/[!-~]*) HTTP\/1\.1$/.exec(line) ?? []
  if (target === undefined || !fields.every((field) => FIELD.test(field))) return 'garbled'
  const lengths = fields.filter((field) => /^content-length:/i.test(field))
  const codings = fields.filter((field) => /^transfer-encoding:/i.test(field))
  if (lengths.length + codings.length > 1) return 'garbled'
  const rest = text.slice(end + 4)
  const read = codings[0] === undefined ? sized(rest, lengths[0]) : /^transfer-encoding: chunked$/i.test(codings[0]) ? chunked(rest) : 'garbled'
  if (typeof read === 'string') return read
  return { text: text.slice(0, end + 4 + read.length), head, body: read.body, target }
}

type Read = { readonly body: string; readonly length: number } | 'more' | 'garbled'

function sized(rest: string, field: string | undefined): Read {
  if (field === undefined) return { body: '', length: 0 }
  const length = /^content-length: (\d{1,15})$/i.exec(field)?.[1]
  if (length === undefined) return 'garbled'
  return rest.length < Number(length) ? 'more' : { body: rest.slice(0, Number(length)), length: Number(length) }
}

function chunked(rest: string): Read {
  let body = ''
  for (let at = 0; ;) {
    const lineEnd = rest.indexOf('\r\n', at)
    if (lineEnd === -1) return 'more'
    const line = rest.slice(at, lineEnd)
    if (!/^[0-9a-fA-F]{1,8}$/.test(line)) return 'garbled'
    const size = Number.parseInt(line, 16)
    const next = lineEnd + 2 + size + 2
    if (rest.length < next) return 'more'
    // nothing may stand where trailers could
    if (rest.slice(next - 2, next) !== '\r\n') return 'garbled'
    if (size === 0) return { body, length: next }
    body += rest.slice(lineEnd + 2, next - 2)
    at = next
  }
}
