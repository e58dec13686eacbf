import type { Send } from '../exchange/chain.ts'
import { discard, type Request } from '../exchange/message.ts'
import { Problem, type ProblemCode } from '../exchange/problem.ts'
import { retryAfterMs } from '../http/retry-after.ts'
import { TakenOver, type Entry, type State } from './journal.ts'
import { Stopped, type OperationsTools, type OperationsUpstream, type Run, type Settled } from './run.ts'
import { turnstile, type Turnstile } from './turnstile.ts'

/** Background operations of one upstream on their way at once: callers who wait in person come first. */
const AT_ONCE = 64
const SHORTEST_PAUSE_MS = 100
const PAUSE_JITTER = 0.2

// Nothing was sent, and it is known that asking later makes sense.
const PAUSES: readonly ProblemCode[] = ['upstream-wait', 'breaker-open', 'volume-exhausted', 'token-unavailable', 'draining']
// Failed on the way, and given up early because the breaker opened or the retry budget was used up.
const PASSING: readonly ProblemCode[] = ['upstream-unreachable', 'upstream-timeout', 'upstream-protocol']

export type Carrier = {
  /** Sends until there is an outcome. Rejects with `Stopped`, the caller's reason, or `TakenOver`. */
  carryOut(run: Run): Promise<Settled>
  /** The longest step of the ladder: what is left between attempts where nothing says when the last one was. */
  stepMs(entry: Entry): number
}

/** Sends runs through their upstream's chain, again and again while only a pause stands between them and an outcome. */
export function carrier(tools: OperationsTools, mark: (run: Run, state: Omit<State, 'owner'>) => Promise<void>): Carrier {
  const { clock, random, report, upstreamOf } = tools
  const turnstiles = new Map<string, Turnstile>()

  async function carryOut(run: Run): Promise<Settled> {
    for (;;) {
      try {
        while (run.nextTryAt > clock.now()) await clock.sleep(run.nextTryAt - clock.now(), run.controller.signal)
        const upstream = upstreamOf(run.entry.upstream)
        if (upstream === undefined)
          return { kind: 'problem', problem: new Problem('unknown-upstream', { detail: 'the upstream of this operation is no longer configured' }) }
        const settled = await sendOnce(run, upstream.door.send)
        const pauseMs = pauseAfter(settled, run, upstream.options.retry)
        if (pauseMs === undefined) return settled
        if (settled.kind === 'answer') discard(settled.answer.body)
        run.phase = 'waiting'
        run.nextTryAt = clock.now() + pauseMs
      } catch (error) {
        if (!(error instanceof Stopped) || error.why !== 'reloaded') throw error
        run.controller = new AbortController()
        // what was waited for inside the old chain is waited for again: a wait is never shortened
        if (run.trace.attempts > 0) run.nextTryAt = Math.max(run.nextTryAt, clock.now() + stepMs(run.entry))
      }
    }
  }

  async function sendOnce(run: Run, send: Send): Promise<Settled> {
    const { signal } = run.controller
    const leave = run.isKept ? await turnstileOf(run.entry.upstream).enter(signal) : undefined
    try {
      return { kind: 'answer', answer: await send(requestOf(run)) }
    } catch (error) {
      if (signal.aborted) throw signal.reason
      if (error instanceof TakenOver) throw error
      if (error instanceof Problem) return { kind: 'problem', problem: error }
      report({ kind: 'warning', about: 'internal', message: error instanceof Error ? (error.stack ?? error.message) : String(error) })
      return { kind: 'problem', problem: new Problem('internal', { cause: error }) }
    } finally {
      leave?.()
    }
  }

  function turnstileOf(upstream: string): Turnstile {
    const known = turnstiles.get(upstream) ?? turnstile(AT_ONCE)
    turnstiles.set(upstream, known)
    return known
  }

  function requestOf(run: Run): Request {
    const { entry, body, controller, trace } = run
    const { upstream, method, target, operation, fields, deadlineAt } = entry
    return {
      id: entry.requestId,
      upstream,
      method,
      target,
      operation,
      fields,
      body,
      signal: controller.signal,
      deadlineAt,
      wishes: { waitMs: undefined, respondAsync: false, timeoutMs: undefined, idempotencyKey: entry.idempotencyKey },
      credential: entry.credential,
      trace,
      journal: {
        sending() {
          run.phase = 'running'
          return mark(run, { isSending: true, attempts: trace.attempts + 1, lastTryAt: clock.now() })
        },
        notSent() {
          run.phase = 'waiting'
          return mark(run, { isSending: false, attempts: trace.attempts, lastTryAt: clock.now() })
        }
      }
    }
  }

  /** How long to wait before the next try; undefined where this is the outcome. All attempts together stay within `retry.attempts`. */
  function pauseAfter(settled: Settled, run: Run, retry: OperationsUpstream['options']['retry']): number | undefined {
    if (run.trace.attempts >= retry.attempts) return undefined
    const atLeast = wantedPause(settled, run, retry.on)
    if (atLeast === undefined) return undefined
    const pauseMs = Math.max(SHORTEST_PAUSE_MS, atLeast) * (1 + PAUSE_JITTER * random())
    return clock.now() + pauseMs < run.entry.deadlineAt ? pauseMs : undefined
  }

  function wantedPause(settled: Settled, run: Run, on: readonly number[]): number | undefined {
    const step = stepMs(run.entry)
    if (settled.kind === 'problem') {
      const { code, details } = settled.problem
      return PAUSES.includes(code) || PASSING.includes(code) ? (details.retryAfterMs ?? step) : undefined
    }
    const { status, fields, retryAt = 0 } = settled.answer
    if (!run.entry.isRepeatable || !on.includes(status)) return undefined
    return Math.max(step, retryAfterMs(fields, clock.wallNow()) ?? 0, retryAt - clock.now())
  }

  function stepMs({ upstream }: Entry): number {
    return Math.max(0, ...(upstreamOf(upstream)?.options.retry.backoff ?? []))
  }

  return { carryOut, stepMs }
}
