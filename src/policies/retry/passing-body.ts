import { Readable } from 'node:stream'
import type { Body } from '../../exchange/message.ts'

type StreamBody = Extract<Body, { kind: 'stream' }>

/**
 * A request body too large to be kept (the server hands over smaller ones as bytes): it can be given to another attempt
 * as long as nothing of it has been read, as when the connection was refused. Whoever sends it destroys what it was
 * given; the caller's own stream is only touched once reading has begun.
 */
export class PassingBody {
  readonly #body: StreamBody
  #isRead = false

  constructor(body: StreamBody) {
    this.#body = body
  }

  get isUnread(): boolean {
    return !this.#isRead
  }

  /** The body for the next attempt. */
  next(): Body {
    const stream = new Untouched(this.#body.stream, () => (this.#isRead = true))
    return { ...this.#body, stream }
  }
}

/** Reads from its source when it is read from itself, not before. */
class Untouched extends Readable {
  readonly #source: Readable
  readonly #onFirstRead: () => void
  #isStarted = false

  constructor(source: Readable, onFirstRead: () => void) {
    super({ highWaterMark: 64 * 1024 })
    this.#source = source
    this.#onFirstRead = onFirstRead
    // an attempt that never got as far as reading has nobody else who listens
    this.on('error', ignoreSinceTheAttemptFails)
  }

  override _read(): void {
    if (!this.#isStarted) this.#start()
    this.#source.resume()
  }

  #start(): void {
    this.#isStarted = true
    this.#onFirstRead()
    this.#source.on('data', (chunk: Buffer) => {
      if (!this.push(chunk)) this.#source.pause()
    })
    this.#source.on('end', () => this.push(null))
    this.#source.on('error', (error) => this.destroy(error))
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (this.#isStarted) this.#source.destroy()
    done(error)
  }
}

function ignoreSinceTheAttemptFails(): void {}
