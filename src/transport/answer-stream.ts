import { Readable } from 'node:stream'

/** What a body stream needs of the connection it is read from. */
export type Flow = { pause(): void; resume(): void; abort(reason: Error): void }

/**
 * An answer's body arriving from the wire, with back-pressure both ways: a slow reader pauses the socket, a reader that
 * goes away closes it.
 */
export class AnswerStream extends Readable {
  readonly #flow: Flow

  constructor(flow: Flow) {
    super({ highWaterMark: 128 * 1024 })
    this.#flow = flow
  }

  arrived(chunk: Buffer): void {
    if (!this.push(chunk)) this.#flow.pause()
  }

  override _read(): void {
    this.#flow.resume()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (!this.readableEnded) this.#flow.abort(error ?? new Error('nobody reads this body any more'))
    done(error)
  }
}
