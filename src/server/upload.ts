import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import type { Clock } from '../exchange/clock.ts'
import { NO_BODY, type Body } from '../exchange/message.ts'
import { CallerGone, Problem } from '../exchange/problem.ts'
import { field, hasField, type Fields } from '../http/fields.ts'

export type UploadLimits = {
  /** More is refused with `body-too-large`. */
  readonly bodyBytes: number
  /** Bodies up to here are read whole before anything is sent, and so can be sent again (after a 401, by retry). */
  readonly bufferBytes: number
  /** The buffered part must have arrived within this time; a longer body must go on moving, by 256 bytes a second or so. */
  readonly bodyMs: number
}

// per half of `bodyMs`
const LEAST_BYTES = 8 * 1024

/**
 * Receives a request body, which a caller that waits to be asked (`Expect: 100-continue`) is asked for: nothing, the whole of it as bytes, or a stream when it is larger than the buffer.
 * Rejects with `body-too-large`, `bad-request` (408, too slow) or `CallerGone`.
 */
export function receiveBody(message: IncomingMessage, response: ServerResponse, limits: UploadLimits, clock: Clock): Body | Promise<Body> {
  const announced = field(message.rawHeaders, 'content-length')
  const isChunked = hasField(message.rawHeaders, 'transfer-encoding')
  if (announced === undefined && !isChunked) return NO_BODY
  const sizeBytes = announced === undefined ? undefined : Number(announced)
  if (sizeBytes === 0) return NO_BODY
  if (sizeBytes !== undefined && sizeBytes > limits.bodyBytes) throw tooLarge()
  if (hasField(message.rawHeaders, 'expect')) response.writeContinue()
  return gather(message, sizeBytes, limits, clock)
}

/** Whether a request announces a body (RFC 9112 §6.3). */
export function hasBody(fields: Fields): boolean {
  return hasField(fields, 'transfer-encoding') || (field(fields, 'content-length') ?? '0') !== '0'
}

function gather(message: IncomingMessage, sizeBytes: number | undefined, limits: UploadLimits, clock: Clock): Promise<Body> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let received = 0
    const timer = clock.after(limits.bodyMs, () => stop(tooSlow()))

    function stop(outcome: Body | Error): void {
      timer.cancel()
      message.off('data', onData)
      message.off('end', onEnd)
      message.off('close', onClose)
      if (outcome instanceof Error) {
        message.pause()
        reject(outcome)
      } else resolve(outcome)
    }
    function onData(chunk: Buffer): void {
      chunks.push(chunk)
      received += chunk.length
      if (received > limits.bodyBytes) return stop(tooLarge())
      if (received > limits.bufferBytes) {
        message.pause()
        const stream = new UploadStream(message, chunks, limits, clock)
        stop({ kind: 'stream', stream, sizeBytes, readAt: () => stream.readAt })
      }
      return undefined
    }
    function onEnd(): void {
      const [first] = chunks
      if (first === undefined) return stop(NO_BODY)
      return stop({ kind: 'bytes', bytes: chunks.length === 1 ? first : Buffer.concat(chunks) })
    }
    function onClose(): void {
      stop(new CallerGone())
    }
    message.on('data', onData)
    message.once('end', onEnd)
    message.once('close', onClose)
  })
}

/**
 * The rest of a large body, after the part already received. Destroying it leaves the caller's connection open, so that
 * an answer can still be given.
 */
class UploadStream extends Readable {
  readonly #message: IncomingMessage
  #pending: Buffer[]
  #stop: () => void
  /** Clock time of the last piece that was asked for: while the provider goes on reading, it need not have answered. */
  readAt: number
  readonly #clock: Clock

  constructor(message: IncomingMessage, received: Buffer[], limits: UploadLimits, clock: Clock) {
    super({ highWaterMark: 64 * 1024 })
    this.#message = message
    this.#pending = received
    this.#clock = clock
    this.readAt = clock.now()
    let total = received.reduce((sum, chunk) => sum + chunk.length, 0)
    let judgedAt = 0
    const timer = clock.after(limits.bodyMs / 2, () => {
      // paused, it is the provider who keeps the caller waiting
      if (!message.isPaused() && total - judgedAt < LEAST_BYTES) return this.destroy(tooSlow())
      judgedAt = total
      return timer.refresh()
    })
    const onData = (chunk: Buffer): void => {
      total += chunk.length
      if (total > limits.bodyBytes) this.destroy(tooLarge())
      else if (!this.push(chunk)) message.pause()
    }
    const onEnd = (): void => {
      this.#stop()
      this.push(null)
    }
    const onClose = (): void => {
      this.destroy(new CallerGone())
    }
    const stop = (): void => {
      timer.cancel()
      message.off('data', onData)
      message.off('end', onEnd)
      message.off('close', onClose)
    }
    this.#stop = stop
    message.on('data', onData)
    message.once('end', onEnd)
    message.once('close', onClose)
    // `on('data')` alone does not wake a stream that was paused by hand
    message.pause()
  }

  override _read(): void {
    this.readAt = this.#clock.now()
    const pending = this.#pending
    this.#pending = []
    let isHungry = true
    for (const chunk of pending) isHungry = this.push(chunk)
    if (isHungry) this.#message.resume()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#stop()
    this.#message.pause()
    done(error)
  }
}

function tooLarge(): Problem {
  return new Problem('body-too-large', { detail: 'the request body is larger than limits.bodyBytes' })
}

function tooSlow(): Problem {
  return new Problem('bad-request', { status: 408, detail: 'the request body did not arrive in time' })
}
