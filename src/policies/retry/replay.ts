import { Readable } from 'node:stream'
import type { Body } from '../../exchange/message.ts'

/**
 * A request body that can be sent more than once while it is small: the caller's stream is recorded as it is sent, up to
 * a bound. A body over the bound, or one with a bound of 0, can be sent again only while nothing of it has been read.
 *
 * The caller's stream is never destroyed: it belongs to the server, which still has to answer on the same connection.
 */
export class Replay {
  readonly #source: Readable
  readonly #sizeBytes: number | undefined
  readonly #boundBytes: number
  readonly #now: () => number
  #recorded: Buffer[] = []
  #recordedBytes = 0
  #isWhole = true
  #state: { kind: 'arriving' } | { kind: 'ended' } | { kind: 'failed'; error: Error } = { kind: 'arriving' }
  #upload: Upload | undefined
  #readAt = 0

  constructor(body: Extract<Body, { kind: 'stream' }>, boundBytes: number, now: () => number) {
    this.#source = body.stream
    this.#sizeBytes = body.sizeBytes
    this.#boundBytes = body.sizeBytes !== undefined && body.sizeBytes > boundBytes ? 0 : boundBytes
    this.#now = now
    // paused first: a listener for data would set the stream flowing
    this.#source.pause()
    this.#source.on('data', this.#arrived)
    this.#source.on('end', this.#ended)
    this.#source.on('error', this.#failed)
  }

  /** Whether another attempt can be given the whole body. */
  get isPossible(): boolean {
    return this.#isWhole && this.#state.kind !== 'failed'
  }

  /** The body for the next attempt, which ends the one before. */
  next(): Body {
    this.#upload?.destroy()
    const upload = new Upload(this)
    this.#upload = upload
    return { kind: 'stream', stream: upload, sizeBytes: this.#sizeBytes, readAt: () => this.#readAt }
  }

  /** The attempt wants more: what was recorded first, then whatever the caller sends. */
  more(upload: Upload): void {
    if (upload !== this.#upload) return
    while (upload.position < this.#recorded.length) {
      const chunk = this.#recorded[upload.position] as Buffer
      upload.position += 1
      if (!this.#push(upload, chunk)) return
    }
    switch (this.#state.kind) {
      case 'ended':
        upload.push(null)
        return
      case 'failed':
        upload.destroy(this.#state.error)
        return
      case 'arriving':
        this.#source.resume()
    }
  }

  /** The attempt is over, with or without having read everything. */
  left(upload: Upload): void {
    if (upload !== this.#upload) return
    this.#upload = undefined
    this.#source.pause()
  }

  #push(upload: Upload, chunk: Buffer): boolean {
    this.#readAt = this.#now()
    return upload.push(chunk)
  }

  readonly #arrived = (chunk: Buffer): void => {
    this.#recordedBytes += chunk.length
    if (this.#recordedBytes > this.#boundBytes) {
      this.#isWhole = false
      this.#recorded = []
    } else {
      this.#recorded.push(chunk)
    }
    const upload = this.#upload
    if (upload === undefined) return this.#hold()
    upload.position = this.#recorded.length
    if (!this.#push(upload, chunk)) this.#hold()
    return undefined
  }

  #hold(): void {
    this.#source.pause()
  }

  readonly #ended = (): void => {
    this.#state = { kind: 'ended' }
    this.#upload?.push(null)
  }

  readonly #failed = (error: Error): void => {
    this.#state = { kind: 'failed', error }
    this.#upload?.destroy(error)
  }
}

/** One attempt's view of the body. */
class Upload extends Readable {
  readonly #replay: Replay
  /** How many of the recorded pieces this attempt has been given. */
  position = 0

  constructor(replay: Replay) {
    super({ highWaterMark: 64 * 1024 })
    this.#replay = replay
    // an attempt that never got as far as reading has nobody else who listens
    this.on('error', ignoreSinceTheAttemptFails)
  }

  override _read(): void {
    this.#replay.more(this)
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#replay.left(this)
    done(error)
  }
}

function ignoreSinceTheAttemptFails(): void {}
