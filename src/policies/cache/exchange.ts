import type { Signal } from '../../exchange/signal.ts'
import type { Send } from '../../exchange/chain.ts'
import { discard, type Body, type Request, type Response } from '../../exchange/message.ts'
import { isProblem, type Problem, type ProblemCode } from '../../exchange/problem.ts'
import type { UpstreamTools } from '../../exchange/tools.ts'
import { responseControl } from '../../http/cache-control.ts'
import { forwarded, type ForwardReason } from '../../http/cache-status.ts'
import { confirms, describes, isWeak, updatedFields, validating } from '../../http/conditional.ts'
import { field, withoutField, type Fields } from '../../http/fields.ts'
import { mayStandIn, type Failure, type StaleWindows } from '../../http/freshness.ts'
import { storableFields } from '../../http/storable.ts'
import { selects } from '../../http/vary.ts'
import { ageMsOf, isFreshOnArrival, storedAnswer, withBody, type Draft, type StoredAnswer } from './answer.ts'
import type { Asked } from './asked.ts'
import type { Changes } from './changes.ts'
import { Fill, type Budget } from './fill.ts'
import { dated, keeper } from './keeping.ts'
import { bothKeys } from './keys.ts'
import type { CacheOptions } from './options.ts'
import { hitStatus, serve } from './serving.ts'
import type { AnswerStore } from './store.ts'

/** Why and with what in hand a request goes upstream. */
export type Situation = {
  readonly key: string
  readonly asked: Asked
  /** A stored answer that may not be used without asking, or not any more. */
  readonly held: StoredAnswer | undefined
  readonly reason: ForwardReason
  /** The flight others may have joined; undefined where the one who asks is alone. */
  readonly flight?: Signal
  /** Told whether the second tier has a fresh answer, before anything else is done. */
  readonly onLooked?: (isFound: boolean) => void
  /** Told of the answer where it comes into the store. */
  readonly onKept?: (answer: StoredAnswer) => void
}

export type Exchanged = {
  /** For the one who asked. */
  readonly response: Response
  /** For all who asked the same meanwhile: undefined where the answer is not theirs to use. */
  readonly shared: StoredAnswer | Promise<StoredAnswer | undefined> | undefined
  /** Set where the held answer stood in for a failure, which those who waited need not meet themselves. */
  readonly met?: Met
}

/** A failure that was met upstream or on the way there. */
export type Met = { readonly failure: Failure; readonly detail: string; readonly status?: number }

export type Exchange = {
  ask(request: Request, next: Send, situation: Situation): Promise<Exchanged>
  /** The held answer in place of a failure, undefined where it may not stand in for this one. */
  standIn(held: StoredAnswer, request: Request, asked: Asked, error: unknown): Response | undefined
  /** The same for one who waited for another's request that met a failure. */
  standInToo(held: StoredAnswer, request: Request, asked: Asked, met: Met): Response | undefined
  /** Stores the answer to another method that stands for GET, given the request GET would have been. */
  adopt(response: Response, request: Request, situation: Situation, journey: Journey): Response
  /** What has to be remembered of the moment a request leaves, to know later how old its answer is and whether it is out of date. */
  departure(request: Request): Journey
}

/** The departure of a request: the point in the order of writes, clock time, and waits on purpose up to then. */
export type Journey = { readonly point: number; readonly startedAt: number; readonly waitedMs: number }

export type ExchangeTools = UpstreamTools & { readonly store: AnswerStore; readonly changes: Changes; readonly onStored: () => void }

/** What stands between us and the provider, by problem; everything else is no reason to serve an old answer. */
const FAILURES: Partial<Record<ProblemCode, Failure>> = {
  'upstream-unreachable': 'disconnected',
  'upstream-timeout': 'disconnected',
  'upstream-protocol': 'disconnected',
  'breaker-open': 'disconnected',
  'upstream-wait': 'obstacle',
  'token-unavailable': 'obstacle',
  'volume-exhausted': 'obstacle'
}
// whoever refused has counted the call as avoided
const COUNTED: ReadonlySet<string> = new Set<ProblemCode>(['breaker-open', 'upstream-wait', 'volume-exhausted'])
// RFC 5861 §4
const ERROR_STATUSES = new Set([500, 502, 503, 504])
// about the moment, not about the resource: they say nothing against what is stored
const PASSING_STATUSES = new Set([408, 421, 425, 429])

/**
 * Takes one GET or HEAD upstream: asks whether the held answer still holds where there is one, stores what comes back
 * where that is allowed, and falls back on the held answer where it may stand in for a failure (RFC 9111 §4.3, §4.2.4).
 */
export function exchanger(options: CacheOptions, tools: ExchangeTools): Exchange {
  const { clock, store, changes } = tools
  const { mode } = options
  const windows: StaleWindows = { ifErrorMs: options.staleIfError, whileRevalidateMs: options.staleWhileRevalidate }
  const keeping = keeper(options)
  const budget: Budget = { usedBytes: 0, maxBytes: options.maxBytes }

  async function ask(request: Request, next: Send, situation: Situation): Promise<Exchanged> {
    const { held, asked } = situation
    const asking = held === undefined ? undefined : validating(request.fields, held.validators)
    const journey = departure(request)
    let response: Response
    try {
      response = await next(held === undefined ? request : withStandIn({ ...request, fields: asking ?? request.fields }, held, asked))
    } catch (error) {
      const response = held === undefined ? undefined : standIn(held, request, asked, error)
      if (response === undefined) throw error
      const met = metBy(error)
      return { response, shared: undefined, ...(met === undefined ? {} : { met }) }
    }
    const { status } = response
    if (asking !== undefined && held !== undefined && status === 304) {
      discard(response.body)
      if (confirms(response.fields, held.validators)) return freshened(held, response, request, situation, journey)
      // confirms something we do not have: what we have is good for nothing, so ask as if we had nothing
      store.drop(held)
      return ask(request, next, { ...situation, held: undefined })
    }
    if (held !== undefined && ERROR_STATUSES.has(status) && maySubstitute(held, asked, 'error')) {
      discard(response.body)
      const met: Met = { failure: 'error', detail: 'stale-if-error', status }
      return { response: substitute(held, request, asked, met), shared: undefined, met }
    }
    if (status === 401 || status === 403) {
      for (const key of bothKeys(situation.key)) store.dropKey(key, request.target)
      tools.onStored()
    }
    return kept(response, request, situation, journey, asking !== undefined)
  }

  function withStandIn(request: Request, held: StoredAnswer, asked: Asked): Request {
    return { ...request, standIn: (failure) => covers(held, asked, failure) }
  }

  function departure({ trace }: Request): Journey {
    return { point: changes.now(), startedAt: clock.now(), waitedMs: trace.waitMs + trace.tokenMs }
  }

  /** How long the answer took, without waits on purpose: they lie before the attempt that was answered. */
  function delayMs({ trace }: Request, { startedAt, waitedMs }: Journey, arrivedAt: number): number {
    return Math.max(0, arrivedAt - startedAt - (trace.waitMs + trace.tokenMs - waitedMs))
  }

  function drafted(request: Request, status: number, fields: Fields, situation: Situation, journey: Journey): Draft | undefined {
    if (!keeping.mayKeep(status, fields)) return undefined
    const { key } = situation
    const arrivedAt = clock.now()
    // a write is on its way: what was read may be what was before it
    if (changes.isUnwritten(request.target, arrivedAt)) return undefined
    return keeping.draft({
      key,
      request,
      status,
      fields,
      arrivedAt,
      receivedAtMs: clock.wallNow(),
      delayMs: delayMs(request, journey, arrivedAt),
      isSettling: () => changes.isSettling(request.target, arrivedAt),
      siblings: () => store.variants(key)
    })
  }

  /** What an answer without content has to say about a stored one, its `Age` included: that counts and is not stored. */
  function newerThan(fields: Fields): Fields {
    const age = field(fields, 'age')
    const newer = dated(storableFields(fields, responseControl(fields, mode), mode), clock.wallNow())
    return age === undefined ? newer : [...newer, 'Age', age]
  }

  function freshened(held: StoredAnswer, response: Response, request: Request, situation: Situation, journey: Journey): Exchanged {
    const now = clock.now()
    const newer = newerThan(response.fields)
    const fields = updatedFields(held.fields, newer)
    if (request.method === 'HEAD') learnFromHead(request, held.status, fields, situation, journey)
    const draft = drafted(request, held.status, fields, situation, journey)
    const cacheStatus = forwarded(situation.reason, { status: 304, isStored: draft !== undefined })
    const marks = { source: 'upstream', cacheStatus } as const
    tools.report({ kind: 'cache', upstream: tools.upstream, result: 'revalidated' })
    if (draft === undefined) {
      // the provider has changed its mind about storing; this one time it has just confirmed it
      store.drop(held)
      tools.onStored()
      return { response: serve({ ...held, fields: withoutField(fields, 'age') }, request, situation.asked, now, marks), shared: undefined }
    }
    const updated = withBody(draft, held.body)
    if (!changes.since(updated.target, journey.point)) {
      store.replace(held, updated)
      situation.onKept?.(updated)
      refreshTwins(updated, newer, request, situation, journey)
      tools.onStored()
    }
    return { response: serve(updated, request, situation.asked, now, marks), shared: isFreshOnArrival(updated) ? updated : undefined }
  }

  // Other variants with the same strong validator are confirmed by the same 304 (RFC 9111 §4.3.4).
  function refreshTwins(updated: StoredAnswer, newer: Fields, request: Request, situation: Situation, journey: Journey): void {
    const { etag } = updated.validators
    if (etag === undefined || isWeak(etag)) return
    for (const twin of store.variants(updated.key)) {
      if (twin === updated || twin.validators.etag !== etag || twin.status !== updated.status) continue
      const draft = drafted(request, twin.status, updatedFields(twin.fields, newer), situation, journey)
      if (draft !== undefined) store.replace(twin, withBody({ ...draft, selecting: twin.selecting }, twin.body))
    }
  }

  function kept(response: Response, request: Request, situation: Situation, journey: Journey, wasOurs: boolean): Exchanged {
    const { held, reason } = situation
    const { status, body } = response
    if (request.method === 'HEAD') learnFromHead(request, status, response.fields, situation, journey)
    const draft = drafted(request, status, response.fields, situation, journey)
    const isKept = draft !== undefined && mayFit(body)
    const marked = { ...response, cacheStatus: forwarded(reason, { status, isStored: isKept }) }
    if (draft === undefined || !isKept) {
      // what the provider says now may not be kept, so what it said before may not outlive it
      if (held !== undefined && status < 500 && !PASSING_STATUSES.has(status)) {
        store.drop(held)
        tools.onStored()
      }
      return { response: marked, shared: undefined }
    }
    if (body.kind === 'stream') {
      const fill = new Fill(body.stream, { sizeBytes: body.sizeBytes, limitBytes: options.maxEntryBytes, budget, flight: situation.flight })
      const whole = fill.whole.then((bytes) => (bytes === undefined ? undefined : keep(draft, bytes, request, journey, situation)))
      const passing: Response = { ...marked, body: { kind: 'stream', stream: fill, sizeBytes: body.sizeBytes } }
      return { response: passing, shared: isFreshOnArrival(draft) ? whole : undefined }
    }
    const answer = keep(draft, body.kind === 'bytes' ? body.bytes : undefined, request, journey, situation)
    // the caller's own conditions were not sent, so they are still to be judged
    const isUnjudged = wasOurs && (situation.asked.isConditional || situation.asked.isPartial) && status === 200
    const judged = isUnjudged ? serve(answer, request, situation.asked, clock.now(), { source: 'upstream', cacheStatus: marked.cacheStatus }) : marked
    return { response: judged, shared: isFreshOnArrival(answer) ? answer : undefined }
  }

  function keep(draft: Draft, bytes: Buffer | undefined, request: Request, journey: Journey, situation: Situation): StoredAnswer {
    const answer = storedAnswer(draft, bytes)
    // a write has overtaken this answer: those who waited for it may have it, those who come later may not
    if (answer.sizeBytes <= options.maxBytes && !changes.since(answer.target, journey.point)) {
      store.put(answer, request.fields)
      situation.onKept?.(answer)
      tools.onStored()
    }
    return answer
  }

  function adopt(response: Response, request: Request, situation: Situation, journey: Journey): Response {
    const { isPublic, maxAgeS, sharedMaxAgeS } = responseControl(response.fields, mode)
    const isExplicit = isPublic || maxAgeS !== undefined || sharedMaxAgeS !== undefined || field(response.fields, 'expires') !== undefined
    // the write itself has changed the target
    return isExplicit ? kept(response, request, situation, { ...journey, point: changes.now() }, false).response : response
  }

  // Updates or drops what is stored for GET by an answer to HEAD (RFC 9111 §4.3.5).
  function learnFromHead(request: Request, status: number, fields: Fields, { key, asked, reason }: Situation, journey: Journey): void {
    if (status !== 200 && status !== 404 && status !== 410) return
    const [getKey] = bothKeys(key)
    for (const stored of store.variants(getKey)) {
      if (!selects(request.fields, stored.selecting, stored.language)) continue
      const isDescribed =
        status === 200 && stored.status === 200 && describes(fields, stored.fields, stored.body.kind === 'bytes' ? stored.body.bytes.length : 0)
      const updated = isDescribed ? updatedFields(stored.fields, newerThan(fields)) : undefined
      const situation: Situation = { key: getKey, asked, held: stored, reason }
      const draft = updated === undefined ? undefined : drafted({ ...request, method: 'GET' }, stored.status, updated, situation, journey)
      if (draft === undefined) store.drop(stored)
      else if (!changes.since(stored.target, journey.point)) store.replace(stored, withBody({ ...draft, selecting: stored.selecting }, stored.body))
      tools.onStored()
    }
  }

  function mayFit(body: Body): boolean {
    const sizeBytes = body.kind === 'bytes' ? body.bytes.length : body.kind === 'stream' ? (body.sizeBytes ?? 0) : 0
    return sizeBytes <= options.maxEntryBytes
  }

  function standIn(held: StoredAnswer, request: Request, asked: Asked, error: unknown): Response | undefined {
    const met = metBy(error)
    const response = met === undefined ? undefined : standInToo(held, request, asked, met)
    const isCounted = request.trace.attempts > 0 || (met !== undefined && COUNTED.has(met.detail))
    if (response !== undefined && !isCounted) tools.report({ kind: 'call-avoided', upstream: tools.upstream, reason: 'stale' })
    return response
  }

  function standInToo(held: StoredAnswer, request: Request, asked: Asked, met: Met): Response | undefined {
    return maySubstitute(held, asked, met.failure) ? substitute(held, request, asked, met) : undefined
  }

  function covers(held: StoredAnswer, asked: Asked, failure: Problem | number): boolean {
    if (typeof failure === 'number') return ERROR_STATUSES.has(failure) && maySubstitute(held, asked, 'error')
    const met = metBy(failure)
    return met !== undefined && maySubstitute(held, asked, met.failure)
  }

  function maySubstitute(held: StoredAnswer, asked: Asked, failure: Failure): boolean {
    return mayStandIn(held, asked.control, ageMsOf(held, clock.now()), mode, windows, failure)
  }

  function substitute(held: StoredAnswer, request: Request, asked: Asked, { status, detail }: Met): Response {
    const now = clock.now()
    const ageS = Math.floor(ageMsOf(held, now) / 1000)
    const cacheStatus = request.trace.attempts > 0 ? forwarded('stale', { status, detail }) : hitStatus(held, ageS, detail)
    tools.report({ kind: 'cache', upstream: tools.upstream, result: 'stale' })
    return serve(held, request, asked, now, { source: 'stale', cacheStatus })
  }

  return { ask, standIn, standInToo, adopt, departure }
}

function metBy(error: unknown): Met | undefined {
  const failure = isProblem(error) ? FAILURES[error.code] : undefined
  return failure === undefined || !isProblem(error) ? undefined : { failure, detail: error.code }
}
