import { Cancellation, type Signal } from '../exchange/signal.ts'
import type { Readable } from 'node:stream'
import type { Policy } from '../exchange/chain.ts'
import type { Clock, Timer } from '../exchange/clock.ts'
import type { Request, Response } from '../exchange/message.ts'
import { Problem } from '../exchange/problem.ts'
import type { UpstreamTools } from '../exchange/tools.ts'
import { field } from '../http/fields.ts'
import type { TimeoutOptions } from './deadline.ts'

type Limits = Pick<TimeoutOptions, 'response' | 'idle'>

// Past the request's deadline a body has to bring this much; less is a provider (or an attacker) keeping connections busy.
const TRICKLE_BYTES_PER_SECOND = 256

/**
 * Bounds one attempt: `response` from sending it to its header, `idle` between two pieces of its body.
 *
 * An upload that makes progress is not yet waiting for its header; a reader that is slow to take what has arrived does
 * not make the provider idle. Past the request's deadline a body may go on while it flows, at least 256 bytes a second
 * over each idle period; event streams may be as slow as they like. Rejects with `upstream-timeout`; the connection is
 * closed, and a body already on its way to the app breaks off visibly.
 */
export function timeout(options: Limits, tools: UpstreamTools): Policy {
  const { clock } = tools

  return async function timeout(request, next) {
    const watch = new Watch(request, options, clock)
    try {
      const response = await next({ ...request, signal: watch.signal, heard: watch.heard })
      watch.answered(response)
      return response
    } catch (error) {
      watch.stop()
      throw error
    }
  }
}

/** Keeps time for one attempt, with one timer that is set anew only when it fires. */
class Watch {
  readonly #request: Request
  readonly #limits: Limits
  readonly #clock: Clock
  readonly #cancellation = new Cancellation()
  readonly #startedAt: number
  #timer: Timer
  #phase: 'header' | 'body' = 'header'
  #heardAt: number
  #flow: { since: number; bytes: number }
  #mayTrickle = false
  #stream: Readable | undefined

  constructor(request: Request, limits: Limits, clock: Clock) {
    this.#request = request
    this.#limits = limits
    this.#clock = clock
    this.#startedAt = clock.now()
    this.#heardAt = this.#startedAt
    this.#flow = { since: this.#startedAt, bytes: 0 }
    if (request.signal.aborted) this.#leave()
    request.signal.addEventListener('abort', this.#leave)
    this.#timer = clock.after(limits.response, this.#check)
  }

  get signal(): Signal {
    return this.#cancellation
  }

  readonly heard = (sizeBytes: number): void => {
    this.#heardAt = this.#clock.now()
    this.#flow.bytes += sizeBytes
    if (this.#phase === 'body') return
    this.#phase = 'body'
    // the header's timer mostly fires soon enough to see to the body too
    if (this.#heardAt + this.#limits.idle < this.#startedAt + this.#limits.response) this.#arm(this.#limits.idle)
  }

  /** The header is there; a streamed body is watched until it closes, anything else has arrived whole. */
  answered(response: Response): void {
    this.#request.signal.removeEventListener('abort', this.#leave)
    if (response.body.kind !== 'stream') return this.#timer.cancel()
    this.#stream = response.body.stream
    this.#mayTrickle = field(response.fields, 'content-type')?.toLowerCase().startsWith('text/event-stream') ?? false
    this.#stream.once('close', () => this.#timer.cancel())
    if (this.#phase === 'header') this.heard(0)
    return undefined
  }

  stop(): void {
    this.#request.signal.removeEventListener('abort', this.#leave)
    this.#timer.cancel()
  }

  readonly #leave = (): void => this.#cancellation.abort(this.#request.signal.reason)

  readonly #check = (): void => {
    const now = this.#clock.now()
    if (this.#phase === 'header') this.#checkHeader(now)
    else this.#checkBody(now)
  }

  #checkHeader(now: number): void {
    const { body } = this.#request
    const sentAt = body.kind === 'stream' ? Math.max(this.#startedAt, body.readAt?.() ?? 0) : this.#startedAt
    const leftMs = sentAt + this.#limits.response - now
    if (leftMs > 0) this.#arm(leftMs)
    else this.#giveUp('no answer within timeout.response')
  }

  #checkBody(now: number): void {
    const { idle } = this.#limits
    // what has arrived and is not taken yet: the reader keeps the provider waiting, not the other way round
    if (this.#stream !== undefined && this.#stream.readableLength > 0) {
      this.#flow = { since: now, bytes: 0 }
      return this.#arm(idle)
    }
    const leftMs = this.#heardAt + idle - now
    if (leftMs <= 0) return this.#giveUp('the body stopped arriving for longer than timeout.idle')
    if (this.#trickles(now)) return this.#giveUp('the body trickles past the deadline of the request')
    return this.#arm(leftMs)
  }

  // judged over whole idle periods that began after the deadline
  #trickles(now: number): boolean {
    const { since, bytes } = this.#flow
    if (this.#mayTrickle || now - since < this.#limits.idle) return false
    this.#flow = { since: now, bytes: 0 }
    return since >= this.#request.deadlineAt && bytes < ((now - since) / 1000) * TRICKLE_BYTES_PER_SECOND
  }

  #arm(ms: number): void {
    this.#timer.cancel()
    this.#timer = this.#clock.after(ms, this.#check)
  }

  #giveUp(detail: string): void {
    const problem = new Problem('upstream-timeout', { proxyError: 'http_response_timeout', detail })
    this.#cancellation.abort(problem)
    this.#stream?.destroy(problem)
  }
}
