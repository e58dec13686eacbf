import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import { makeKeyPair } from '../../src/tokens/keys/key-pair.ts'

/** A request as it arrived whole: what the provider would have carried out. */
export type Arrival = { readonly method: string; readonly target: string; readonly fields: string; readonly body: Buffer; readonly at: number }

/** What is done with a connection once a whole request has arrived on it. */
export type Answering = (socket: Socket, arrival: Arrival, count: number) => void

export type FaultServer = {
  readonly url: string
  /** Requests that arrived whole, in order. */
  readonly arrivals: Arrival[]
  /** Connections open right now. */
  readonly open: () => number
  /** Accepts no more connections; those that are open stay. */
  refuse(): void
  close(): Promise<void>
}

/**
 * A provider on a raw loopback socket, which answers (or does not) byte by byte as a test says. Nothing of node's HTTP
 * stands in between, so it can break every rule.
 */
export async function faultServer(answer: Answering): Promise<FaultServer> {
  const arrivals: Arrival[] = []
  return listening(
    createServer({ noDelay: true }, (socket) =>
      receive(socket, (arrival) => {
        arrivals.push(arrival)
        answer(socket, arrival, arrivals.length)
      })
    ),
    'http',
    arrivals
  )
}

/** Accepts connections and never says a word: a TLS handshake hangs there. */
export function silentTlsServer(): Promise<FaultServer> {
  return listening(createServer(), 'https', [])
}

/** Answers a TLS handshake with something else. */
export function brokenTlsServer(): Promise<FaultServer> {
  return listening(
    createServer((socket) => socket.once('data', () => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))),
    'https',
    []
  )
}

/** Speaks TLS with a certificate nobody has vouched for. */
export async function untrustedTlsServer(): Promise<FaultServer> {
  const { privatePem, publicHalf } = await makeKeyPair({ alg: 'ES256', name: 'localhost', days: 2, now: Date.now() })
  const arrivals: Arrival[] = []
  const server = createTlsServer({ key: privatePem.reveal(), cert: publicHalf.certificatePem }, (socket) =>
    receive(socket, (arrival) => arrivals.push(arrival))
  )
  return listening(server, 'https', arrivals)
}

/** Starts a server on a free loopback port. */
export async function listening(server: Server, scheme: 'http' | 'https', arrivals: Arrival[]): Promise<FaultServer> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.on('error', () => socket.destroy())
    socket.on('close', () => sockets.delete(socket))
  })
  server.on('tlsClientError', (_error, socket) => socket.destroy())
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `${scheme}://127.0.0.1:${port}`,
    arrivals,
    open: () => sockets.size,
    refuse: () => void server.close(),
    close: () =>
      new Promise((resolve) => {
        // it may have been closed by refuse
        server.close(() => resolve())
        for (const socket of sockets) socket.destroy()
      })
  }
}

// enough of a parser for what a well-behaved client sends
function receive(socket: Socket, arrived: (arrival: Arrival) => void): void {
  let bytes = Buffer.alloc(0)
  socket.on('data', (chunk: Buffer) => {
    bytes = Buffer.concat([bytes, chunk])
    for (let request = wholeRequest(bytes); request !== undefined; request = wholeRequest(bytes)) {
      bytes = bytes.subarray(request.sizeBytes)
      arrived(request.arrival)
    }
  })
}

function wholeRequest(bytes: Buffer): { arrival: Arrival; sizeBytes: number } | undefined {
  const headEnd = bytes.indexOf('\r\n\r\n')
  if (headEnd === -1) return undefined
  const fields = bytes.toString('latin1', 0, headEnd)
  const [method = '', target = ''] = fields.split(' ')
  const rest = bytes.subarray(headEnd + 4)
  const length = /^content-length: *(\d+)/im.exec(fields)?.[1]
  const body = /^transfer-encoding: *chunked/im.test(fields) ? chunkedBody(rest) : sized(rest, Number(length ?? 0))
  if (body === undefined) return undefined
  return { arrival: { method, target, fields, body: body.body, at: performance.now() }, sizeBytes: headEnd + 4 + body.sizeBytes }
}

function sized(rest: Buffer, length: number): { body: Buffer; sizeBytes: number } | undefined {
  return rest.length < length ? undefined : { body: rest.subarray(0, length), sizeBytes: length }
}

function chunkedBody(rest: Buffer): { body: Buffer; sizeBytes: number } | undefined {
  const chunks: Buffer[] = []
  let at = 0
  for (;;) {
    const lineEnd = rest.indexOf('\r\n', at)
    if (lineEnd === -1) return undefined
    const size = Number.parseInt(rest.toString('latin1', at, lineEnd), 16)
    const next = lineEnd + 2 + size + 2
    if (rest.length < next) return undefined
    if (size === 0) return { body: Buffer.concat(chunks), sizeBytes: next }
    chunks.push(rest.subarray(lineEnd + 2, lineEnd + 2 + size))
    at = next
  }
}
