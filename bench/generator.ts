/**
 * A load generator of our own: keep-alive connections, one request at a time on each, every body compared.
 *
 * Closed loop (as many as go) where wrk is not installed; open loop (a fixed rate, whatever the answers take) for
 * latencies. Run as `node generator.ts '{"url": …}'`; prints one line of JSON.
 */
import { connect, type Socket } from 'node:net'

export type GeneratorOptions = {
  readonly url: string
  readonly seconds: number
  readonly connections: number
  /** Requests per second, or 0 for as many as go. */
  readonly rate: number
  /** What every answer's body has to be; undefined: only its length is counted. */
  readonly expect: string | undefined
  /** Appends `/0`, `/1`, … up to here to the path, so that every request is another resource; 0: one path. */
  readonly spread: number
  /** Ends early after this many requests; absent: never. */
  readonly atMost?: number
}

export type GeneratorResult = {
  readonly requests: number
  readonly wrong: number
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly bytes: number
}

const HEADER_END = Buffer.from('\r\n\r\n')
const LAST_CHUNK = Buffer.from('0\r\n\r\n')

export async function generate(options: GeneratorOptions): Promise<GeneratorResult> {
  const { hostname, port, host, pathname } = new URL(options.url)
  const expected = options.expect === undefined ? undefined : Buffer.from(options.expect)
  const latenciesMs: number[] = []
  const idle: Connection[] = []
  const waiting: number[] = []
  let sent = 0
  let wrong = 0
  let bytes = 0
  let stopped = false
  let left = 0
  const atMost = options.atMost ?? Infinity
  const { promise: ended, resolve: allLeft } = Promise.withResolvers<void>()

  // exactly what wrk sends: another field could be part of a cache key
  function requestText(): string {
    const path = options.spread > 0 ? `${pathname}/${sent % options.spread}` : pathname
    sent += 1
    return `GET ${path} HTTP/1.1\r\nHost: ${host}\r\n\r\n`
  }

  class Connection {
    readonly #socket: Socket
    readonly closed: Promise<void>
    #received: Buffer = Buffer.alloc(0)
    #body: { at: number; length: number | undefined } | undefined
    #status = 0
    #since = 0
    #got = 0

    constructor() {
      this.#socket = connect({ host: hostname, port: Number(port), noDelay: true })
      this.#socket.on('data', (chunk: Buffer) => this.#arrived(chunk))
      this.closed = new Promise((resolve) => {
        this.#socket.on('error', (error) => {
          wrong += 1
          process.stderr.write(`${error.message}\n`)
        })
        this.#socket.on('close', () => {
          if (!stopped) wrong += 1
          resolve()
        })
      })
    }

    /** `since` is when the request was due, so that time spent waiting for a connection counts. */
    ask(since: number): void {
      this.#since = since
      this.#socket.write(requestText())
    }

    end(): void {
      this.#socket.destroy()
    }

    #leave(): void {
      left += 1
      if (left === options.connections) allLeft()
    }

    #arrived(chunk: Buffer): void {
      this.#got += chunk.length
      // a large body of known length need not be kept to be counted
      if (this.#body?.length !== undefined && this.#body.length > 65_536) this.#received = Buffer.alloc(0)
      else this.#received = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk])
      if (this.#body === undefined) {
        const end = this.#received.indexOf(HEADER_END)
        if (end === -1) return
        const header = this.#received.toString('latin1', 0, end)
        const length = /\r\ncontent-length: *(\d+)/i.exec(header)?.[1]
        this.#status = Number(header.slice(9, 12))
        this.#body = { at: end + 4, length: length === undefined ? undefined : Number(length) }
      }
      const { at, length } = this.#body
      if (length === undefined ? !this.#received.subarray(-5).equals(LAST_CHUNK) : this.#got < at + length) return
      const large = length !== undefined && length > 65_536
      const right = this.#status === 200 && (expected === undefined || large || bodyOf(this.#received, at, length).equals(expected))
      if (!right) wrong += 1
      bytes += this.#got
      latenciesMs.push(performance.now() - this.#since)
      this.#received = Buffer.alloc(0)
      this.#body = undefined
      this.#got = 0
      if (stopped) return
      if (sent >= atMost) return this.#leave()
      const due = options.rate === 0 ? performance.now() : waiting.shift()
      if (due === undefined) idle.push(this)
      else this.ask(due)
    }
  }

  const connections = Array.from({ length: options.connections }, () => new Connection())
  const startedAt = performance.now()
  const endsAt = startedAt + options.seconds * 1000
  if (options.rate === 0) {
    for (const connection of connections) connection.ask(startedAt)
    const timeUp = new Promise((resolve) => setTimeout(resolve, options.seconds * 1000).unref())
    await Promise.race([timeUp, ended])
  } else {
    idle.push(...connections)
    const gapMs = 1000 / options.rate
    let due = startedAt
    while (performance.now() < endsAt) {
      for (; due <= performance.now(); due += gapMs) {
        const connection = idle.pop()
        if (connection === undefined) waiting.push(due)
        else connection.ask(due)
      }
      // a timer of 1 ms is too coarse to send 1,000 a second evenly
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  const tookMs = performance.now() - startedAt
  stopped = true
  for (const connection of connections) connection.end()
  await Promise.all(connections.map((connection) => connection.closed))
  const sorted = latenciesMs.toSorted((a, b) => a - b)
  return {
    requests: sorted.length,
    wrong: wrong + waiting.length,
    perSecond: (sorted.length / tookMs) * 1000,
    p50Ms: sorted[Math.floor(sorted.length * 0.5)] ?? Number.NaN,
    p99Ms: sorted[Math.floor(sorted.length * 0.99)] ?? Number.NaN,
    bytes
  }
}

function bodyOf(received: Buffer, at: number, length: number | undefined): Buffer {
  if (length !== undefined) return received.subarray(at)
  // chunked: good enough for the one or two chunks of a small body
  const parts: Buffer[] = []
  for (let from = at; ;) {
    const end = received.indexOf('\r\n', from)
    const size = Number.parseInt(received.toString('latin1', from, end), 16)
    if (end === -1 || !(size > 0)) return Buffer.concat(parts)
    parts.push(received.subarray(end + 2, end + 2 + size))
    from = end + 2 + size + 2
  }
}

if (process.argv[1] === import.meta.filename) {
  const options: GeneratorOptions = JSON.parse(process.argv[2] ?? '{}')
  console.log(JSON.stringify(await generate(options)))
}
