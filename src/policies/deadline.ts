import { Cancellation } from '../exchange/signal.ts'
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
    // Derived by hand: Signal.any costs more than everything else in this room together.
    const cancellation = new Cancellation()
    const leave = (): void => cancellation.abort(signal.reason)
    signal.addEventListener('abort', leave)
    const timer = clock.after(deadlineAt - clock.now(), () => cancellation.abort(outOfTime(limitMs, wishes)))
    try {
      return await next({ ...request, signal: cancellation, deadlineAt })
    } finally {
      timer.cancel()
      signal.removeEventListener('abort', leave)
    }
  }
}

function outOfTime(limitMs: number, wishes: CallerWishes): Problem {
  if (limitMs === wishes.waitMs) return new Problem('upstream-wait', { retryAfterMs: ASK_AGAIN_MS, detail: 'no answer within the time given by Prefer: wait' })
  const limit = limitMs === wishes.timeoutMs ? 'Attache-Timeout' : 'timeout.total'
  return new Problem('upstream-timeout', { detail: `no answer within ${limit}` })
}
