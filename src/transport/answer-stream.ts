import { Readable } from 'node:stream'

/** What a body stream needs of the connection it is read from. */
export type Flow = { pause(): void; resume(): void; abort(reason: Error): void }

/**
 * An answer's body arriving from the wire, with back-pressure both ways: a slow reader pauses the socket, a reader that
 * goes away closes it.
 */
export class AnswerStream extends Readable {
  readonly #flow: Flow
  /** A piece was asked for and has not arrived. */
  #isWanted = false
  /** The reader said that it has enough. */
  #isHeld = false

  constructor(flow: Flow) {
    // pieces come in 64 KiB: the first that is not taken at once is the last one held
    super({ highWaterMark: 16 * 1024 })
    this.#flow = flow
  }

  arrived(chunk: Buffer): void {
    this.#isWanted = false
    if (!this.push(chunk)) this.#flow.pause()
  }

  override pause(): this {
    this.#isHeld = true
    this.#flow.pause()
    return super.pause()
  }

  override resume(): this {
    this.#isHeld = false
    super.resume()
    this.#goOn()
    return this
  }

  override _read(): void {
    this.#isWanted = true
    // node asks for the next piece before it hands over this one, whose reader may then have enough
    queueMicrotask(() => this.#goOn())
  }

  #goOn(): void {
    if (this.#isWanted && !this.#isHeld && !this.destroyed) this.#flow.resume()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (!this.readableEnded) this.#flow.abort(error ?? new Error('nobody reads this body any more'))
    done(error)
  }
}
