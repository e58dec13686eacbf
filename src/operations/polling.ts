import type { Signal } from '../exchange/signal.ts'
import type { Send } from '../exchange/chain.ts'
import { collect } from '../exchange/collect.ts'
import { NO_BODY, discard, type CallerWishes, type Request, type Response } from '../exchange/message.ts'
import { PROBLEMS, Problem } from '../exchange/problem.ts'
import type { UpstreamTools } from '../exchange/tools.ts'
import { field, hasField, keepFields } from '../http/fields.ts'
import { retryAfterMs } from '../http/retry-after.ts'
import { targetFault } from '../http/target.ts'
import type { AsyncOptions } from './options.ts'
import { newTrace } from './run.ts'

/** What the poller needs to know of its upstream, asked anew each time because a reload may change it. */
export type PolledUpstream = {
  readonly base: URL
  readonly poll: AsyncOptions['poll']
  readonly totalMs: number
  readonly credentialOf: (method: string, path: string) => string | undefined
  readonly operationOf: (method: string, path: string) => string
}

/** A place where a result will be found, and when it may be looked at next. */
type Place = { nextAt: number; intervalMs: number; readonly until: number; readonly flights: Map<string, Flight> }
type Flight = { readonly answer: Promise<Response>; seats: number; readonly abandon: (reason: unknown) => void }

export type Poller = {
  /** Sends a request on; a look at a place where a result is awaited waits for its turn and is shared. */
  ask(request: Request, next: Send): Promise<Response>
  /**
   * Follows a 202 and its `Location` (or the look at an awaited place that came too early) until the result is there or
   * `untilAt` (clock time) has come; then gives the last answer that said "not yet".
   */
  follow(request: Request, answer: Response, untilAt: number, next: Send): Promise<Response>
}

const PLACES = 1000
const LONGEST_SHARED_BYTES = 1024 * 1024
const NO_WISHES: CallerWishes = { waitMs: undefined, respondAsync: false, timeoutMs: undefined, idempotencyKey: undefined }

// Fields of the request that began the work and say nothing about looking for its result.
const NOT_FOR_POLLS = /^(?:content-.*|if-.*|idempotency-key|range|expect|digest|repr-digest|te|cache-control)$/i
// Fields that differ between callers without changing the answer.
const NOT_TELLING_APART = /^(?:traceparent|tracestate|x-request-id|x-correlation-id|request-id|user-agent|date|cache-control|pragma)$/i

/**
 * Asks for results at the provider's tempo, whoever is waiting: first soon, then at growing intervals, later where
 * `Retry-After` says so; all who wait for one place share one look. 202 and 404 mean "not yet" (contract §6.11).
 */
export function poller(upstreamOf: () => PolledUpstream | undefined, tools: UpstreamTools): Poller {
  const { clock, report, upstream } = tools
  const places = new Map<string, Place>()

  async function ask(request: Request, next: Send): Promise<Response> {
    if (places.size > 0 && isLook(request)) {
      const place = awaited(request.target)
      if (place !== undefined) return look(place, request, next)
    }
    const answer = await next(request)
    if (answer.status === 202) expect(request, answer)
    return answer
  }

  function awaited(target: string): Place | undefined {
    const place = places.get(target)
    if (place === undefined || place.until > clock.now()) return place
    places.delete(target)
    return undefined
  }

  /** Remembers where the result of an accepted request will be; gives its target where it can be looked at. */
  function expect(request: Request, answer: Response): string | undefined {
    const options = upstreamOf()
    const location = field(answer.fields, 'location')
    if (options === undefined || location === undefined || answer.source === 'local') return undefined
    const target = targetBehind(location, request.target, options.base)
    if (target === undefined || awaited(target) !== undefined) return target
    const now = clock.now()
    const { first, deadline } = options.poll
    places.set(target, {
      nextAt: now + Math.max(first, retryAfterMs(answer.fields, clock.wallNow()) ?? 0),
      intervalMs: first,
      until: now + deadline,
      flights: new Map()
    })
    if (places.size > PLACES) places.delete(places.keys().next().value ?? target)
    return target
  }

  async function look(place: Place, request: Request, next: Send): Promise<Response> {
    const key = likeness(request)
    const latest = clock.now() + Math.min(request.wishes.timeoutMs ?? Infinity, request.wishes.waitMs ?? Infinity, upstreamOf()?.totalMs ?? Infinity)
    for (;;) {
      if (request.signal.aborted) throw request.signal.reason
      const shared = place.flights.get(key)
      if (shared === undefined && place.nextAt > latest) {
        const retryAfter = place.nextAt - clock.now()
        throw new Problem('upstream-wait', { detail: 'the result is awaited, and the provider is not asked for it more often', retryAfterMs: retryAfter })
      }
      const answer = await seat(shared ?? takeOff(place, key, request, next), request.signal, latest)
      if (shared === undefined) return answer
      // too large to share: whoever came second looks for himself, at the next turn
      if (answer.body.kind === 'stream') continue
      report({ kind: 'call-avoided', upstream, reason: 'collapsed' })
      return { ...answer, source: 'collapsed' }
    }
  }

  function takeOff(place: Place, key: string, request: Request, next: Send): Flight {
    const controller = new AbortController()
    const answer = turn(place, { ...request, signal: controller.signal, deadlineAt: Infinity, wishes: NO_WISHES }, next)
    const land = (): void => void place.flights.delete(key)
    const flight: Flight = {
      answer,
      seats: 0,
      abandon(reason) {
        land()
        controller.abort(reason)
      }
    }
    place.flights.set(key, flight)
    answer.then(land, land)
    return flight
  }

  /** Waits for the place's turn, then looks. */
  async function turn(place: Place, request: Request, next: Send): Promise<Response> {
    const askedAt = clock.now()
    while (place.nextAt > clock.now()) await clock.sleep(place.nextAt - clock.now(), request.signal)
    request.trace.waitMs += clock.now() - askedAt
    const poll = upstreamOf()?.poll
    if (poll !== undefined) place.intervalMs = Math.max(place.intervalMs, Math.min(poll.max, place.intervalMs * poll.factor))
    place.nextAt = clock.now() + place.intervalMs
    // a stored "not there" would hide the result for as long as it is fresh
    const fields = hasField(request.fields, 'cache-control') ? request.fields : [...request.fields, 'Cache-Control', 'no-cache']
    const answer = await next({ ...request, fields })
    if (isNotYet(answer)) expect(request, answer)
    else places.delete(request.target)
    place.nextAt = Math.max(place.nextAt, clock.now() + (retryAfterMs(answer.fields, clock.wallNow()) ?? 0))
    return { ...answer, body: await collect(answer.body, LONGEST_SHARED_BYTES) }
  }

  // A shared flight belongs to nobody: whoever leaves gives up a seat, the last one the flight.
  function seat(flight: Flight, signal: Signal, latest: number): Promise<Response> {
    return new Promise((resolve, reject) => {
      flight.seats += 1
      function leave(reason: unknown): void {
        flight.seats -= 1
        reject(reason)
        if (flight.seats === 0) flight.abandon(reason)
      }
      const gone = (): void => leave(signal.reason)
      const timer = clock.after(latest - clock.now(), () => leave(new Problem('upstream-timeout', { detail: 'no answer in time' })))
      signal.addEventListener('abort', gone, { once: true })
      flight.answer.then(
        (answer) => {
          timer.cancel()
          // a body that is still arriving goes on needing to know that its reader has left
          if (answer.body.kind !== 'stream') signal.removeEventListener('abort', gone)
          resolve(answer)
        },
        (error: unknown) => {
          timer.cancel()
          signal.removeEventListener('abort', gone)
          reject(error)
        }
      )
    })
  }

  async function follow(request: Request, answer: Response, untilAt: number, next: Send): Promise<Response> {
    const isAtPlace = isLook(request) && awaited(request.target) !== undefined
    let target = isAtPlace ? request.target : undefined
    let last = answer
    // the answer that named the place goes to the caller when time runs out; from the place itself the latest word
    let fallback = answer
    const leaving = new AbortController()
    const leave = (): void => leaving.abort(request.signal.reason)
    request.signal.addEventListener('abort', leave)
    const timer = clock.after(untilAt - clock.now(), () => leaving.abort(new RanOut()))
    try {
      for (;;) {
        if (last.status === 202) target = expect(request, last) ?? target
        const place = target === undefined ? undefined : awaited(target)
        if (target === undefined || place === undefined || !isNotYet(last)) break
        const seen = await seek(place, pollRequest(request, target, leaving.signal), next)
        if (seen === undefined) break
        last = seen
        if (isAtPlace || !isNotYet(last)) fallback = discarding(fallback, last)
      }
    } catch (error) {
      if (!(error instanceof RanOut)) throw error
    } finally {
      timer.cancel()
      request.signal.removeEventListener('abort', leave)
    }
    return fallback
  }

  /** One look; a failure that may pass counts as "not yet", a lasting one (undefined) ends the search but not the work. */
  async function seek(place: Place, request: Request, next: Send): Promise<Response | undefined> {
    for (;;) {
      // its own trace: what the request made before does not count as attempts of this look
      const trace = newTrace()
      try {
        return await look(place, { ...request, trace }, next)
      } catch (error) {
        if (!(error instanceof Problem)) throw error
        if (!PROBLEMS[error.code].retryable) return undefined
        place.nextAt = Math.max(place.nextAt, clock.now() + (error.details.retryAfterMs ?? place.intervalMs))
        await clock.sleep(place.nextAt - clock.now(), request.signal)
      } finally {
        for (const sum of ['attempts', 'upstreamMs', 'waitMs', 'tokenMs'] as const) request.trace[sum] += trace[sum]
      }
    }
  }

  function pollRequest(request: Request, target: string, signal: Signal): Request {
    const options = upstreamOf()
    const path = target.split('?', 1)[0] ?? target
    return {
      ...request,
      method: 'GET',
      target,
      operation: options?.operationOf('GET', path) ?? 'other',
      credential: options === undefined ? request.credential : options.credentialOf('GET', path),
      fields: keepFields(request.fields, (name) => !NOT_FOR_POLLS.test(name)),
      body: NO_BODY,
      wishes: NO_WISHES,
      signal
    }
  }

  return { ask, follow }
}

class RanOut extends Error {}

function discarding(old: Response, better: Response): Response {
  discard(old.body)
  return better
}

function isLook(request: Request): boolean {
  return request.method === 'GET' || request.method === 'HEAD'
}

function isNotYet(answer: Response): boolean {
  return answer.status === 202 || answer.status === 404
}

function likeness(request: Request): string {
  return JSON.stringify([request.method, request.credential, keepFields(request.fields, (name) => !NOT_TELLING_APART.test(name))])
}

/**
 * The target of a `Location` that Attache may ask itself: on the provider's own host, below the base path, and meaning
 * one thing only; undefined otherwise (it is handed over, contract §6.11).
 */
export function targetBehind(location: string, requestTarget: string, base: URL): string | undefined {
  const resolved = URL.parse(location, new URL(base.pathname.slice(0, -1) + requestTarget, base.origin))
  if (resolved === null || resolved.origin !== base.origin || resolved.username !== '' || resolved.password !== '') return undefined
  if (!resolved.pathname.startsWith(base.pathname)) return undefined
  const target = `/${resolved.pathname.slice(base.pathname.length)}${resolved.search}`
  return targetFault(target) === undefined ? target : undefined
}
