import { Cancellation, type Signal } from '../exchange/signal.ts'
import type { Clock, Timer } from '../exchange/clock.ts'
import type { Policy } from '../exchange/chain.ts'
import type { CallerWishes } from '../exchange/message.ts'
import { duration, section, type Decoded } from '../exchange/options.ts'
import { Problem } from '../exchange/problem.ts'
import type { UpstreamTools } from '../exchange/tools.ts'

/** One section for the two timeout rooms: `total` is the deadline's, the others are the attempt's. */
export const timeoutOptions = section(
  'How long each step may take',
  {
    connect: duration('TCP and TLS handshake', '5s'),
    response: duration('From sending an attempt to its header', '30s'),
    idle: duration('Between two pieces of a body', '30s'),
    total: duration('The whole request with all attempts and waits', '150s')
  },
  {}
)
export type TimeoutOptions = Decoded<typeof timeoutOptions>

// No better moment is known when it is the caller who would not wait longer.
const ASK_AGAIN_MS = 1000

/**
 * Bounds the whole request: `timeout.total`, or less where the caller says so (`Attache-Timeout`, `Prefer: wait`).
 *
 * Sets `deadlineAt`, against which every wait below is measured before it begins, and a signal that is aborted when the
 * time is up or the caller has gone. Both end with the answer's header: from there the timeout policy watches the body,
 * which may flow longer than `total` but may not trickle. Rejects with `upstream-timeout`, after `Prefer: wait` with
 * `upstream-wait`; retry turns either into `outcome-unknown` where a request that must not be repeated was sent.
 */
export function deadline(options: Pick<TimeoutOptions, 'total'>, tools: UpstreamTools): Policy {
  const { clock } = tools

  return async function deadline(request, next) {
    const { wishes, signal } = request
    if (signal.aborted) throw signal.reason
    // a background operation brings a deadline of its own
    const totalMs = request.deadlineAt === Infinity ? options.total : Infinity
    const limitMs = Math.min(totalMs, wishes.timeoutMs ?? Infinity, wishes.waitMs ?? Infinity)
    const deadlineAt = Math.min(request.deadlineAt, clock.now() + limitMs)
    const end = new End(signal, deadlineAt, () => outOfTime(limitMs, wishes), clock)
    try {
      return await next({ ...request, signal: end, deadlineAt })
    } finally {
      end.over()
    }
  }
}

/**
 * The caller's signal and the deadline in one. Nearly every answer from the cache comes with nobody listening, so the timer
 * is set, and the caller listened to, for the first one who does.
 */
class End implements Signal {
  readonly #caller: Signal
  readonly #deadlineAt: number
  readonly #outOfTime: () => Problem
  readonly #clock: Clock
  readonly #listened = new Cancellation()
  #timer: Timer | undefined
  #isOver = false

  constructor(caller: Signal, deadlineAt: number, outOfTime: () => Problem, clock: Clock) {
    this.#caller = caller
    this.#deadlineAt = deadlineAt
    this.#outOfTime = outOfTime
    this.#clock = clock
  }

  get aborted(): boolean {
    return this.#listened.aborted || (this.#timer === undefined && !this.#isOver && this.#caller.aborted)
  }

  get reason(): unknown {
    return this.#listened.aborted ? this.#listened.reason : this.#caller.reason
  }

  addEventListener(type: 'abort', listener: () => void): void {
    if (this.#timer === undefined) {
      this.#caller.addEventListener('abort', this.#leave)
      this.#timer = this.#clock.after(this.#deadlineAt - this.#clock.now(), () => this.#listened.abort(this.#outOfTime()))
    }
    this.#listened.addEventListener(type, listener)
  }

  removeEventListener(type: 'abort', listener: () => void): void {
    this.#listened.removeEventListener(type, listener)
  }

  /** The answer's header is there: neither the caller nor the time ends it any more. */
  over(): void {
    this.#isOver = true
    this.#timer?.cancel()
    this.#caller.removeEventListener('abort', this.#leave)
  }

  readonly #leave = (): void => this.#listened.abort(this.#caller.reason)
}

function outOfTime(limitMs: number, wishes: CallerWishes): Problem {
  if (limitMs === wishes.waitMs) return new Problem('upstream-wait', { retryAfterMs: ASK_AGAIN_MS, detail: 'no answer within the time given by Prefer: wait' })
  const limit = limitMs === wishes.timeoutMs ? 'Attache-Timeout' : 'timeout.total'
  return new Problem('upstream-timeout', { detail: `no answer within ${limit}` })
}
