import type { Policy, Send } from '../../exchange/chain.ts'
import type { Request, Response } from '../../exchange/message.ts'
import { Problem } from '../../exchange/problem.ts'
import { forwarded } from '../../http/cache-status.ts'
import { unconditional } from '../../http/conditional.ts'
import { field } from '../../http/fields.ts'
import { reuse, type StaleWindows, type Verdict } from '../../http/freshness.ts'
import { referencedTarget } from '../../http/reference.ts'
import { selects } from '../../http/vary.ts'
import { advisor, type Advice } from './advisor.ts'
import { ageMsOf, sharedAgeMsOf, type StoredAnswer } from './answer.ts'
import { PLAIN, askedOf, type Asked } from './asked.ts'
import { changes, referenced, type Unsettled } from './changes.ts'
import { exchanger, type Situation } from './exchange.ts'
import { flights, type Flight, type Outcome } from './flights.ts'
import { eventsOf } from './happened.ts'
import { headKey, keys } from './keys.ts'
import type { CacheOptions } from './options.ts'
import { sharedAnswers } from './second-tier.ts'
import { hitStatus, serve, serveHit } from './serving.ts'
import { answerStore } from './store.ts'
import { tiered } from './tiered.ts'
import type { CacheTools } from './tools.ts'

export { cacheOptions, type CacheOptions } from './options.ts'

/** A cache policy with the handles the admin API needs. */
export type Cache = {
  readonly policy: Policy
  /** Drops stored answers whose target begins with the prefix, and all in the second tier; gives how many were stored here. */
  purge(prefix: string): Promise<number>
  /** Which lifetimes would be worth having, by what was measured since the cache began. */
  advice(): readonly Advice[]
  readonly bytes: number
  readonly entries: number
}

/** Methods that change nothing (RFC 9110 §9.2.1 and the registry); any other one is taken to change its target. */
const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PROPFIND', 'REPORT', 'SEARCH', 'QUERY'])
// A validation in the background has no caller with a deadline.
const BACKGROUND_MS = 120_000

/**
 * The HTTP cache of one upstream (RFC 9111, docs/rfc9111.md): answers GET and HEAD from memory where the provider or the
 * operator allows it, lets all who want the same thing at the same time share one call, and never gives one identity's
 * answer to another.
 */
export function cache(options: CacheOptions, tools: CacheTools): Cache {
  const { clock, upstream, report } = tools
  const { mode } = options
  const windows: StaleWindows = { ifErrorMs: options.staleIfError, whileRevalidateMs: options.staleWhileRevalidate }
  const base = tools.baseUrl === undefined ? undefined : new URL(tools.baseUrl)
  const recent = changes()
  const { keyOf, flightKeyOf } = keys(options, tools.identityOf)
  const tier = options.secondTier ? tools.secondTier : undefined
  const shared = tier === undefined ? undefined : sharedAnswers(options, { ...tools, tier, flightKeyOf })
  const store = answerStore(options.maxBytes, (target) => void shared?.drop(target))
  const inner = { ...tools, store, changes: recent, onStored: reportSize }
  const exchange = exchanger(options, inner)
  const underWay = flights(shared === undefined ? exchange : tiered(exchange, shared, options, inner), clock)
  const happened = eventsOf(upstream)
  const counsel = advisor(clock)

  function cache(request: Request, next: Send): Promise<Response> {
    const isReading = request.method === 'GET' || request.method === 'HEAD'
    if (!isReading || request.body.kind !== 'none') return write(request, next)
    const asked = askedOf(request.fields)
    if (asked.control.isNoStore || asked.isForOrigin) return bypass(request, next)

    const key = keyOf(request, asked)
    const found = choose(request, asked, key)
    if (found !== undefined && found.verdict !== 'validate') return Promise.resolve(fromStore(request, next, asked, found))
    if (asked.control.isOnlyIfCached) return Promise.reject(notCached())

    const { control } = asked
    const isReload = control.isNoCache || control.maxAgeS !== undefined || control.minFreshS !== undefined
    const isOwn = request.method === 'HEAD' || isReload || asked.isConditional || asked.isPartial
    const enquiry: Enquiry = { request, next, asked, key }
    return isOwn ? alone(enquiry, found) : together(enquiry, found)
  }

  function notCached(): Problem {
    return new Problem('only-if-cached', { detail: `${upstream} would have to be asked, which only-if-cached forbids` })
  }

  /**
   * The stored answer this request selects, and what may be done with it. HEAD is served from an answer to GET where that
   * may be used, else from an answer to HEAD.
   */
  function choose(request: Request, asked: Asked, key: string): Found | undefined {
    const found = judge(request, asked, key)
    if (request.method === 'GET' || (found !== undefined && found.verdict !== 'validate')) return found
    return judge(request, asked, headKey(key))
  }

  function judge(request: Request, asked: Asked, key: string): Found | undefined {
    const answer = store.find(key, request.fields)
    if (answer === undefined) return undefined
    const ageMs = ageMsOf(answer, clock.now())
    return { answer, ageMs, verdict: reuse(answer, asked.control, ageMs, mode, windows) }
  }

  function fromStore(request: Request, next: Send, asked: Asked, { answer, verdict, ageMs }: Found): Response {
    if (verdict === 'fresh') {
      report(happened.hit)
      report(happened.avoided)
      if (asked === PLAIN && request.method === 'GET') return serveHit(answer, ageMs)
      return serve(answer, request, asked, clock.now(), { source: 'cache', cacheStatus: hitStatus(answer, Math.floor(ageMs / 1000)) })
    }
    report(happened.stale)
    report(happened.avoidedStale)
    if (verdict === 'behind') validateBehind(request, next, answer)
    const detail = verdict === 'behind' ? 'stale-while-revalidate' : 'max-stale'
    return serve(answer, request, asked, clock.now(), { source: 'stale', cacheStatus: hitStatus(answer, Math.floor(ageMs / 1000), detail) })
  }

  /** Goes upstream for this caller only; `flightKey` where it might have gone for others too. */
  async function alone(enquiry: Enquiry, found: Found | undefined, flightKey?: string): Promise<Response> {
    report(happened.miss)
    const { response } = await exchange.ask(enquiry.request, enquiry.next, situationOf(enquiry, found))
    announced(enquiry.request, response)
    if (flightKey !== undefined) counsel.saw(enquiry.request.operation, flightKey, response)
    return response
  }

  /** Joins those who are asking the same already, or goes upstream for all who will (RFC 9111 §4). */
  function together(enquiry: Enquiry, found: Found | undefined): Promise<Response> {
    const flightKey = flightKeyOf(enquiry.request, enquiry.key)
    const flight = underWay.get(flightKey)
    return flight === undefined ? first(enquiry, flightKey, found) : join(flight, enquiry, flightKey, found)
  }

  function first(enquiry: Enquiry, flightKey: string, found: Found | undefined): Promise<Response> {
    return underWay.isUnshared(flightKey, clock.now()) ? alone(enquiry, found, flightKey) : lead(enquiry, flightKey, found)
  }

  async function join(joined: Flight, enquiry: Enquiry, flightKey: string, found: Found | undefined): Promise<Response> {
    const { request, asked, key } = enquiry
    let held = found
    let flight: Flight | undefined = joined
    // a flight that fails takes its own caller with it, nobody else: the others get one more try together
    for (let tries = 0; tries < 2; tries++) {
      if (flight === undefined) return first(enquiry, flightKey, held)
      let outcome: Outcome
      try {
        outcome = await flight.join(request.signal)
      } catch (error) {
        return staleInstead(error, enquiry, held)
      }
      if (outcome.kind === 'kept' && mayUse(outcome.answer, request, asked)) {
        report(happened.collapsed)
        report(happened.avoidedCollapsed)
        return serve(outcome.answer, request, asked, clock.now(), { source: 'collapsed', cacheStatus: forwarded('uri-miss', { isCollapsed: true }) })
      }
      // what was found before the wait may be outdated or gone
      held = judge(request, asked, key)
      const instead = outcome.kind === 'stood-in' && held !== undefined ? exchange.standInToo(held.answer, request, asked, outcome.met) : undefined
      if (instead !== undefined) {
        report(happened.avoidedCollapsed)
        return instead
      }
      if (outcome.kind !== 'failed') break
      flight = underWay.get(flightKey)
    }
    return alone(enquiry, held)
  }

  async function lead(enquiry: Enquiry, flightKey: string, found: Found | undefined): Promise<Response> {
    const { request, next } = enquiry
    const situation = situationOf(enquiry, found)
    // where there is a second tier, it tells
    if (shared === undefined) report(happened.miss)
    try {
      const response = await underWay.lead(request, next, flightKey, shared === undefined ? situation : { ...situation, onLooked })
      announced(request, response)
      counsel.saw(request.operation, flightKey, response)
      return response
    } catch (error) {
      return staleInstead(error, enquiry, found)
    }
  }

  function onLooked(isFound: boolean): void {
    report(isFound ? happened.hit : happened.miss)
    if (isFound) report(happened.avoided)
  }

  /** A caller whose time is up while it waits for others may have to do with the stale answer. */
  function staleInstead(error: unknown, { request, asked }: Enquiry, found: Found | undefined): Response {
    const response = found === undefined ? undefined : exchange.standIn(found.answer, request, asked, error)
    if (response === undefined) throw error
    return response
  }

  function mayUse(answer: StoredAnswer, request: Request, asked: Asked): boolean {
    const isSelected = selects(request.fields, answer.selecting, answer.language)
    return isSelected && reuse(answer, asked.control, sharedAgeMsOf(answer, clock.now()), mode, windows) === 'fresh'
  }

  /** Validates a stored answer with nobody waiting (RFC 5861 §3); at most one such call at a time. */
  function validateBehind(request: Request, next: Send, answer: StoredAnswer): void {
    const flightKey = flightKeyOf(request, answer.key)
    if (underWay.get(flightKey) !== undefined) return
    const asking: Request = {
      ...request,
      method: 'GET',
      fields: unconditional(request.fields),
      deadlineAt: clock.now() + BACKGROUND_MS,
      trace: { attempts: 0, upstreamMs: 0, waitMs: 0, tokenMs: 0, sent: false }
    }
    underWay.send(asking, next, flightKey, { key: answer.key, asked: PLAIN, held: answer, reason: 'stale' })
  }

  function situationOf({ request, asked, key }: Enquiry, found: Found | undefined): Situation {
    const ownKey = request.method === 'HEAD' ? headKey(key) : key
    if (found === undefined) {
      // HEAD may have selected an answer to GET that is of no use any more
      const anyway = store.find(key, request.fields) === undefined ? 'vary-miss' : 'miss'
      return { key: ownKey, asked, held: undefined, reason: store.variants(key).length > 0 ? anyway : 'uri-miss' }
    }
    const { answer: held, ageMs } = found
    const isFresh = !held.control.isNoCache && ageMs < held.lifetimeMs
    return { key: ownKey, asked, held, reason: isFresh ? 'request' : 'stale' }
  }

  /** Past the cache on the caller's wish: neither answered from it nor stored. */
  async function bypass(request: Request, next: Send): Promise<Response> {
    report(happened.bypass)
    const response = await next(request)
    announced(request, response)
    return { ...response, cacheStatus: forwarded('request', { status: response.status }) }
  }

  /** Methods that are not answered from the store go upstream first, and may outdate what is stored (RFC 9111 §4, §4.4). */
  async function write(request: Request, next: Send): Promise<Response> {
    const isUnsafe = !SAFE_METHODS.has(request.method)
    const journey = exchange.departure(request)
    let response: Response
    try {
      response = await next(request)
    } catch (error) {
      // it may have been carried out all the same
      if (isUnsafe && request.trace.sent) await changed(request.target)
      throw error
    }
    if (isUnsafe && response.status < 400) {
      // carried out later (RFC 9110 §15.3.3): until it has settled, what is read may be the old state
      const unsettled = response.status === 202 ? { unwrittenUntil: clock.now() + tools.settleMs } : {}
      const others = referenced(request, response, base).map(async (target) => changed(target))
      const told = Promise.all([changed(request.target, unsettled) ?? Promise.resolve(), ...others])
      // a stream must not be left without a reader
      if (response.body.kind !== 'stream') await told
    }
    announced(request, response)
    const marked = { ...response, cacheStatus: forwarded('method', { status: response.status }) }
    // an answer that says it is the resource itself stands for GET (RFC 9110 §9.3.3); one that says what became of the POST does not
    if (request.method !== 'POST' || response.status !== 200) return marked
    const own = field(response.fields, 'content-location')
    if (own === undefined || referencedTarget(own, request.target, base) !== request.target) return marked
    const situation: Situation = { key: keyOf(request, askedOf(request.fields)), asked: PLAIN, held: undefined, reason: 'method' }
    return exchange.adopt(marked, { ...request, method: 'GET' }, situation, journey)
  }

  /** What a 201 or 202 points to is there, or will be: nothing known of its absence counts any more. */
  function announced(request: Request, response: Response): void {
    if (response.status !== 201 && response.status !== 202) return
    for (const target of referenced(request, response, base)) void changed(target, { absentUntil: clock.now() + tools.settleMs })
  }

  /** Settles when replicas know it too, as far as they share answers. */
  function changed(target: string, unsettled?: Unsettled): Promise<void> | undefined {
    recent.mark(target, unsettled)
    underWay.closeTarget(target)
    if (store.dropTarget(target) > 0) reportSize()
    return shared?.drop(target)
  }

  function reportSize(): void {
    report({ kind: 'cache-size', upstream, bytes: store.bytes, entries: store.entries, evictions: store.takeEvictions() })
  }

  return {
    policy: cache,
    async purge(prefix) {
      recent.markAll()
      underWay.closePrefix(prefix)
      const dropped = store.purge(prefix)
      if (dropped > 0) reportSize()
      await shared?.dropAll()
      return dropped
    },
    advice: counsel.advice,
    get bytes() {
      return store.bytes
    },
    get entries() {
      return store.entries
    }
  }
}

/** A request for something that is not to be had from the store, with what is known of it. */
type Enquiry = { readonly request: Request; readonly next: Send; readonly asked: Asked; readonly key: string }

/** A stored answer, and what may be done with it. */
type Found = { readonly answer: StoredAnswer; readonly verdict: Verdict; readonly ageMs: number }
