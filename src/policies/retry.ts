import type { Policy } from '../exchange/chain.ts'
import { pathOf, type Request, type Response } from '../exchange/message.ts'
import { duration, integer, list, number, route, section, size, type Decoded } from '../exchange/options.ts'
import { Problem, isProblem, type ProblemCode } from '../exchange/problem.ts'
import type { UpstreamTools } from '../exchange/tools.ts'
import { retryAfterMs } from '../http/retry-after.ts'
import { routeMatcher } from '../http/route.ts'
import { retryBudget } from './retry/budget.ts'
import { drain } from './retry/drain.ts'
import { ladderMs } from './retry/ladder.ts'
import { PassingBody } from './retry/passing-body.ts'

export const retryOptions = section(
  'Which failures are asked again, how often and how far apart',
  {
    attempts: integer('Attempts in all', { minimum: 1, maximum: 10 }, 3),
    backoff: list('The ladder: wait before attempt 2, 3, …; the last step repeats', duration('A step'), ['10s', '30s', '60s']),
    jitter: number('Waits are lengthened by up to this share, never shortened', { minimum: 0, maximum: 1 }, 0.2),
    on: list('Statuses worth asking again', integer('Status', { minimum: 400, maximum: 599 }), [408, 425, 429, 500, 502, 503, 504]),
    routes: list('Operations declared safe to repeat although their method is not', route('METHOD /template'), []),
    never: list('Operations never repeated', route('METHOD /template'), []),
    bufferBytes: size('Request bodies up to here can be replayed', '1MiB'),
    budget: number('Retries at most this share of the last minute’s requests (10 a second are always allowed)', { minimum: 0, maximum: 1 }, 0.2)
  },
  {}
)
export type RetryOptions = Decoded<typeof retryOptions>

/** The breaker as seen from here: while it is open nobody waits for a next attempt that will not be made. */
export type Brake = {
  /** The answer everybody gets now, undefined while attempts are made. */
  refusal(): Problem | undefined
  /** Calls back each time it opens; gives the way to stop that. */
  onOpen(listener: () => void): () => void
}

/** RFC 9110 §9.2.2; TRACE never gets this far. */
const IDEMPOTENT = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE'])
const FAILED_ON_THE_WAY: readonly ProblemCode[] = ['upstream-unreachable', 'upstream-protocol', 'upstream-timeout']
// Asking again would meet the same certificate and the same header.
const LASTING = new Set(['tls_certificate_error', 'http_response_header_section_size', 'http_response_header_size'])

type Failure = { readonly kind: 'answer'; readonly response: Response } | { readonly kind: 'problem'; readonly problem: Problem }

/**
 * The only place that asks again: up to `attempts` in all for requests that may be repeated (idempotent methods,
 * declared routes, an `Idempotency-Key`), and for any request of which no byte can have reached the provider.
 *
 * The wait before each is the step of the ladder or the provider's `Retry-After`, whichever is longer, and never
 * shortened: where it does not fit the deadline, the budget is used up or the breaker is open, the failure at hand is the
 * answer. Rejects with that failure, or with `outcome-unknown` where a request that must not be repeated was sent and
 * not answered.
 */
export function retry(options: RetryOptions, tools: UpstreamTools & { breaker?: Brake }): Policy {
  const { clock, random, report, upstream, breaker } = tools
  const isDeclared = routeMatcher(options.routes)
  const isForbidden = routeMatcher(options.never)
  const worthAskingAgain = new Set(options.on)
  const budget = retryBudget(options.budget, clock.now)

  return async function retry(request, next) {
    budget.request()
    const mayRepeat = isRepeatable(request)
    const passing = request.body.kind === 'stream' ? new PassingBody(request.body) : undefined
    let resumeAt: number | undefined
    // a background operation may have made some before: its attempts count together
    for (let made = request.trace.attempts + 1; ; made++) {
      let failure: Failure
      try {
        if (resumeAt !== undefined) await pause(resumeAt, request)
        const response = await next(passing === undefined ? request : { ...request, body: passing.next() })
        if (!worthAskingAgain.has(response.status)) return response
        failure = { kind: 'answer', response }
      } catch (error) {
        if (!isProblem(error)) throw error
        failure = { kind: 'problem', problem: error }
      }
      resumeAt = mayRepeat || wasNeverSent(failure, request) ? nextAttemptAt(failure, request, made, passing) : undefined
      if (resumeAt === undefined) return end(failure, request, mayRepeat)
      if (failure.kind === 'answer') drain(failure.response.body, clock)
      report({ kind: 'retry', upstream, reason: codeOf(failure), waitMs: resumeAt - clock.now() })
    }
  }

  function isRepeatable(request: Request): boolean {
    const path = pathOf(request.target)
    if (isForbidden(request.method, path)) return false
    return IDEMPOTENT.has(request.method) || request.wishes.idempotencyKey !== undefined || isDeclared(request.method, path)
  }

  /** When to try again; undefined where this failure is final. */
  function nextAttemptAt(failure: Failure, request: Request, made: number, passing: PassingBody | undefined): number | undefined {
    if (made >= options.attempts || request.signal.aborted || passing?.isUnread === false) return undefined
    if (failure.kind === 'problem' && (!FAILED_ON_THE_WAY.includes(failure.problem.code) || LASTING.has(failure.problem.details.proxyError ?? '')))
      return undefined
    if (breaker?.refusal() !== undefined) return undefined
    // what the cache holds may be given at once: nobody waits on the ladder, and the provider is left alone
    if (request.standIn?.(failure.kind === 'answer' ? failure.response.status : failure.problem) === true) return undefined
    const now = clock.now()
    let at = now + ladderMs(options.backoff, made, options.jitter, random())
    if (failure.kind === 'answer') {
      at = Math.max(at, now + (retryAfterMs(failure.response.fields, clock.wallNow()) ?? 0), failure.response.retryAt ?? 0)
    }
    return at < request.deadlineAt && budget.take() ? at : undefined
  }

  /** Waits to the full; ends early only for a caller who leaves, a deadline, or a breaker that opens meanwhile. */
  async function pause(at: number, { signal, trace }: Request): Promise<void> {
    const from = clock.now()
    trace.nextTryAt = at
    const controller = new AbortController()
    const stop = (): void => controller.abort(signal.aborted ? signal.reason : breaker?.refusal())
    signal.addEventListener('abort', stop)
    const ignoreBreaker = breaker?.onOpen(stop)
    try {
      // a timer may fire a moment early
      for (let leftMs = at - clock.now(); leftMs > 0; leftMs = at - clock.now()) await clock.sleep(leftMs, controller.signal)
    } finally {
      signal.removeEventListener('abort', stop)
      ignoreBreaker?.()
      trace.waitMs += clock.now() - from
    }
  }

  function end(failure: Failure, request: Request, mayRepeat: boolean): Response {
    const { trace, signal } = request
    if (failure.kind === 'answer') {
      report({ kind: 'operation-failed', upstream, code: codeOf(failure) })
      return failure.response
    }
    const { problem } = failure
    const isUnknown = !mayRepeat && trace.sent && (signal.aborted || FAILED_ON_THE_WAY.includes(problem.code))
    const last = isUnknown
      ? new Problem('outcome-unknown', { cause: problem, detail: 'the request was sent and not answered; ask the provider before sending it again' })
      : problem
    if (trace.attempts > 0) report({ kind: 'operation-failed', upstream, code: last.code })
    throw last
  }
}

function wasNeverSent(failure: Failure, request: Request): boolean {
  return failure.kind === 'problem' && !request.trace.sent
}

function codeOf(failure: Failure): string {
  return failure.kind === 'answer' ? String(failure.response.status) : failure.problem.code
}
