/**
 * Many callers at once, each with a connection and one GET. Run as `node crowd.ts '{"url": …}'`; prints one line of JSON.
 *
 * Quick ones read their answer and leave; slow ones take a piece of it now and then until the time is up.
 */
import { connect } from 'node:net'

export type CrowdOptions = {
  readonly url: string
  readonly callers: number
  /** Absent: quick. Else milliseconds between two pieces, and for how long once everybody has got the first. */
  readonly slow?: { readonly everyMs: number; readonly forMs: number }
}

export type CrowdResult = {
  /** Callers whose answer began with 200, and, where they are quick, was whole. */
  readonly served: number
  /** Milliseconds until the last of them was. */
  readonly lastMs: number
}

/** Who is not served by then is not served. */
const PATIENCE_MS = 60_000

type Caller = { readonly served: Promise<number | undefined>; leave(): void }

export async function crowd(options: CrowdOptions): Promise<CrowdResult> {
  const startedAt = performance.now()
  const callers = Array.from({ length: options.callers }, () => caller(options, startedAt))
  const timer = setTimeout(() => callers.forEach(({ leave }) => leave()), PATIENCE_MS)
  const times = (await Promise.all(callers.map(({ served }) => served))).filter((ms) => ms !== undefined)
  clearTimeout(timer)
  await new Promise((resolve) => setTimeout(resolve, options.slow?.forMs ?? 0))
  for (const { leave } of callers) leave()
  return { served: times.length, lastMs: Math.max(0, ...times) }
}

/** `served` resolves with the milliseconds after which it was, undefined where it was not. */
function caller({ url, slow }: CrowdOptions, startedAt: number): Caller {
  const { hostname, port, host, pathname } = new URL(url)
  const { promise, resolve } = Promise.withResolvers<number | undefined>()
  const socket = connect({ host: hostname, port: Number(port), noDelay: true })
  let text = ''
  socket.on('connect', () => socket.write(`GET ${pathname} HTTP/1.1\r\nHost: ${host}\r\n\r\n`))
  socket.on('data', (piece: Buffer) => {
    if (slow === undefined) {
      text += piece.toString('latin1')
      if (isWhole(text)) resolve(performance.now() - startedAt)
      return
    }
    if (piece.toString('latin1', 0, 12) === 'HTTP/1.1 200') resolve(performance.now() - startedAt)
    socket.pause()
    setTimeout(() => socket.resume(), slow.everyMs)
  })
  socket.on('error', () => socket.destroy())
  socket.on('close', () => resolve(undefined))
  return { served: promise, leave: () => void socket.destroy() }
}

function isWhole(text: string): boolean {
  const end = text.indexOf('\r\n\r\n')
  const length = /\r\ncontent-length: *(\d+)/i.exec(text)?.[1]
  return text.startsWith('HTTP/1.1 200') && length !== undefined && text.length === end + 4 + Number(length)
}

if (process.argv[1] === import.meta.filename) console.log(JSON.stringify(await crowd(JSON.parse(process.argv[2] ?? '{}'))))
