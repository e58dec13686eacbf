import type { RequestControl, ResponseControl } from './cache-control.ts'
import { MAX_DELTA_SECONDS, deltaSeconds } from './directives.ts'
import { field, fieldValues, type Fields } from './fields.ts'
import { parseStrictHttpDate } from './http-date.ts'

/** Statuses a cache may keep without being told so (RFC 9110 §15.1). 206 is among them, but this cache keeps no parts. */
export const HEURISTICALLY_CACHEABLE: ReadonlySet<number> = new Set([200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])

// RFC 9111 §4.2.2 names 10 % as typical; a guess is never worth more than a day.
const HEURISTIC_SHARE = 0.1
const LONGEST_HEURISTIC_MS = 86_400_000

/**
 * The lifetime the provider gave, in milliseconds, undefined where it gave none (RFC 9111 §4.2.1).
 *
 * `s-maxage` (shared caches) before `max-age` before `Expires` minus `Date`; `receivedAtMs` stands in for a missing or
 * unreadable `Date`. Unreadable or contradicting values are read the restrictive way: over at once, or the earliest.
 */
export function explicitLifetimeMs(control: ResponseControl, fields: Fields, mode: 'private' | 'shared', receivedAtMs: number): number | undefined {
  if (mode === 'shared' && control.sharedMaxAgeS !== undefined) return control.sharedMaxAgeS * 1000
  if (control.maxAgeS !== undefined) return control.maxAgeS * 1000
  if (control.isTargeted) return undefined
  const expires = fieldValues(fields, 'expires')
  if (expires.length === 0) return undefined
  const date = dateMs(fields, receivedAtMs)
  // an invalid date, especially "0", is in the past (RFC 9111 §5.3)
  const lifetimes = expires.map((text) => (parseStrictHttpDate(text, receivedAtMs) ?? -Infinity) - date)
  return Math.max(0, Math.min(...lifetimes))
}

/** A guess from `Last-Modified` (RFC 9111 §4.2.2) in milliseconds, 0 where there is nothing to guess from. */
export function heuristicLifetimeMs(fields: Fields, receivedAtMs: number): number {
  const modified = parseStrictHttpDate(field(fields, 'last-modified') ?? '', receivedAtMs)
  if (modified === undefined) return 0
  return Math.min(Math.max(0, (dateMs(fields, receivedAtMs) - modified) * HEURISTIC_SHARE), LONGEST_HEURISTIC_MS)
}

/**
 * How old an answer was on arrival, in milliseconds: the corrected initial age of RFC 9111 §4.2.3.
 *
 * `receivedAtMs` is wall time, `delayMs` how long the answer took from the request on. Of a list in `Age` the first member
 * counts, what is no number is ignored (§5.1); the delay counts with and without one. A negative one can only come from a broken clock or an attacker: such an
 * answer is as old as can be.
 */
export function arrivalAgeMs(fields: Fields, receivedAtMs: number, delayMs: number): number {
  // dates have whole seconds: fractions of one are no age
  const apparentS = Math.max(0, Math.floor((receivedAtMs - dateMs(fields, receivedAtMs)) / 1000))
  const [member = ''] = (field(fields, 'age') ?? '').split(',')
  const text = member.trim()
  if (/^-\d+$/.test(text)) return MAX_DELTA_SECONDS * 1000
  const corrected = (deltaSeconds(text) ?? 0) * 1000 + delayMs
  return Math.min(Math.max(apparentS * 1000, corrected, 0), MAX_DELTA_SECONDS * 1000)
}

/** The `Date` of an answer in epoch milliseconds; the time of receipt where it is missing or unreadable (RFC 9110 §6.6.1). */
export function dateMs(fields: Fields, receivedAtMs: number): number {
  const text = field(fields, 'date')
  return (text === undefined ? undefined : parseStrictHttpDate(text, receivedAtMs)) ?? receivedAtMs
}

/** What decides whether a stored answer may be used; times in milliseconds. */
export type Reusable = {
  readonly control: ResponseControl
  readonly lifetimeMs: number
  /** Whether the provider itself gave the lifetime. */
  readonly isExplicit: boolean
}

/** Windows past freshness the operator allows, in milliseconds; undefined where the operator says nothing. */
export type StaleWindows = { readonly ifErrorMs: number | undefined; readonly whileRevalidateMs: number }

/**
 * What to do with a stored answer of this age for this request (RFC 9111 §4.2):
 *
 * `fresh` and `stale` may be sent as they are (`stale` because the caller accepts it), `behind` may be sent while it is
 * validated in the background (RFC 5861 §3), `validate` may not be sent before the provider has confirmed it.
 */
export type Verdict = 'fresh' | 'stale' | 'behind' | 'validate'

export function reuse(answer: Reusable, asked: RequestControl, ageMs: number, mode: 'private' | 'shared', windows: StaleWindows): Verdict {
  const { control, lifetimeMs } = answer
  if (control.isNoCache || asked.isNoCache) return 'validate'
  const isFresh = lifetimeMs > ageMs
  // immutable content cannot have changed while it is fresh: a reload (max-age=0) brings nothing (RFC 8246 §2)
  if (asked.maxAgeS !== undefined && ageMs > asked.maxAgeS * 1000 && !(isFresh && control.isImmutable)) return 'validate'
  if (asked.minFreshS !== undefined && lifetimeMs - ageMs < asked.minFreshS * 1000) return 'validate'
  if (isFresh) return 'fresh'
  if (forbidsStale(control, mode)) return 'validate'
  const staleMs = ageMs - lifetimeMs
  if (asked.maxStaleS !== undefined && staleMs <= asked.maxStaleS * 1000) return 'stale'
  // a caller that states how old it may be does not want a stale one (RFC 9111 §5.2.1.1)
  if (asked.maxAgeS !== undefined) return 'validate'
  const window = control.staleWhileRevalidateS === undefined ? windows.whileRevalidateMs : control.staleWhileRevalidateS * 1000
  return staleMs < window ? 'behind' : 'validate'
}

/** Why the cache would send a stale answer instead of an error: an error answer, no connection, or another obstacle of our own. */
export type Failure = 'error' | 'disconnected' | 'obstacle'

// How long an answer may stand in while the provider cannot be reached, where neither it nor the operator says.
const DISCONNECTED_MS = 3_600_000

/**
 * Whether a stored answer of this age may stand in for a failure (RFC 5861 §4, RFC 9111 §4.2.4).
 *
 * The provider's `stale-if-error` decides, narrowed by the caller's; without it the caller's, then the operator's. Where
 * nobody says anything, only a disconnected cache may, and only with an answer whose lifetime the provider gave.
 */
export function mayStandIn(
  answer: Reusable,
  asked: RequestControl,
  ageMs: number,
  mode: 'private' | 'shared',
  windows: StaleWindows,
  failure: Failure
): boolean {
  const { control } = answer
  if (control.isNoCache || asked.isNoCache || forbidsStale(control, mode)) return false
  if (asked.staleIfErrorS === undefined && asked.maxStaleS === undefined && (asked.maxAgeS !== undefined || asked.minFreshS !== undefined)) return false
  const staleMs = ageMs - answer.lifetimeMs
  const stated = leastDefined(control.staleIfErrorS, asked.staleIfErrorS)
  if (stated !== undefined) return staleMs <= stated * 1000
  if (windows.ifErrorMs !== undefined) return staleMs <= windows.ifErrorMs
  return failure === 'disconnected' && answer.isExplicit && staleMs <= DISCONNECTED_MS
}

/** Whether the provider forbids any use past freshness; `s-maxage` includes `proxy-revalidate` (RFC 9111 §5.2.2.10). */
export function forbidsStale(control: ResponseControl, mode: 'private' | 'shared'): boolean {
  return control.isMustRevalidate || (mode === 'shared' && (control.isProxyRevalidate || control.sharedMaxAgeS !== undefined))
}

function leastDefined(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined ? b : b === undefined ? a : Math.min(a, b)
}
