import type { Signal } from '../../exchange/signal.ts'
import { Readable } from 'node:stream'

/** Bytes of all bodies being collected at once, over all fills of one cache. */
export type Budget = { usedBytes: number; readonly maxBytes: number }

export type FillOptions = {
  /** The announced length, where there is one: a body of any other length is not complete. */
  readonly sizeBytes: number | undefined
  /** A longer body is not collected; its reader gets it all the same. */
  readonly limitBytes: number
  readonly budget: Budget
  /** The flight of those who wait for the whole, aborted when the last one has left; undefined where only the reader wants it. */
  readonly flight: Signal | undefined
}

/**
 * Passes a body on to its reader while collecting a copy.
 *
 * As long as it collects, it reads at the provider's pace: those who wait for the whole must not depend on how fast its
 * first reader is, and the memory is bounded by the limit anyway. Beyond the limit it gives up the copy and lets the
 * reader set the pace. A reader that leaves ends the transfer, unless somebody else wants the whole.
 */
export class Fill extends Readable {
  readonly #source: Readable
  readonly #options: FillOptions
  #chunks: Buffer[] | undefined = []
  #collectedBytes = 0
  #settle: (whole: Buffer | undefined) => void = () => {}
  /** The complete body; undefined where it broke off, grew too large or nobody was left to want it. Never rejects. */
  readonly whole: Promise<Buffer | undefined>

  constructor(source: Readable, options: FillOptions) {
    super({ highWaterMark: 64 * 1024 })
    this.#source = source
    this.#options = options
    this.whole = new Promise((resolve) => (this.#settle = resolve))
    source.on('data', (chunk: Buffer) => this.#arrived(chunk))
    source.on('end', () => this.#ended())
    source.on('error', (error) => this.#broken(error))
    source.on('close', () => this.#broken(new Error('the body ended before it was complete')))
    options.flight?.addEventListener('abort', () => this.#stop(null), { once: true })
  }

  override _read(): void {
    this.#source.resume()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (this.#chunks === undefined || this.#options.flight === undefined) this.#stop(error)
    // whoever else wants the whole is still served
    else this.#source.resume()
    done(error)
  }

  #giveUp(): void {
    this.#release(undefined)
    if (this.destroyed) this.#stop(null)
  }

  #arrived(chunk: Buffer): void {
    if (this.#chunks !== undefined) {
      this.#collectedBytes += chunk.length
      this.#options.budget.usedBytes += chunk.length
      if (this.#collectedBytes > this.#options.limitBytes || this.#options.budget.usedBytes > this.#options.budget.maxBytes) this.#giveUp()
      else this.#chunks.push(chunk)
    }
    if (this.destroyed) return
    if (!this.push(chunk) && this.#chunks === undefined) this.#source.pause()
  }

  #ended(): void {
    const { sizeBytes } = this.#options
    const isComplete = sizeBytes === undefined || sizeBytes === this.#collectedBytes
    this.#release(isComplete && this.#chunks !== undefined ? Buffer.concat(this.#chunks) : undefined)
    if (!this.destroyed) this.push(null)
  }

  #broken(error: Error): void {
    if (this.#source.readableEnded) return
    this.#release(undefined)
    if (!this.destroyed) this.destroy(error)
  }

  #stop(error: Error | null): void {
    this.#release(undefined)
    this.#source.destroy(error ?? undefined)
  }

  #release(whole: Buffer | undefined): void {
    if (this.#chunks !== undefined) this.#options.budget.usedBytes -= this.#collectedBytes
    this.#chunks = undefined
    this.#settle(whole)
  }
}
