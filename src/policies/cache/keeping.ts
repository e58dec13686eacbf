import { pathOf, type Request } from '../../exchange/message.ts'
import { controlReader, type ResponseControl } from '../../http/cache-control.ts'
import { validatorsOf } from '../../http/conditional.ts'
import { field, hasField, isNamed, withField, type Fields } from '../../http/fields.ts'
import { HEURISTICALLY_CACHEABLE, arrivalAgeMs, dateMs, explicitLifetimeMs, heuristicLifetimeMs } from '../../http/freshness.ts'
import { httpDate, parseStrictHttpDate } from '../../http/http-date.ts'
import { firstRoute } from '../../http/route.ts'
import { isStorable, storableFields } from '../../http/storable.ts'
import { selecting, varyNames } from '../../http/vary.ts'
import type { Draft, LocalPolicy, StoredAnswer } from './answer.ts'
import type { CacheOptions } from './options.ts'

/** An answer as it came in. Clock times and durations in milliseconds, `receivedAtMs` in wall time. */
export type Arrival = {
  readonly key: string
  readonly request: Request
  readonly status: number
  readonly fields: Fields
  readonly arrivedAt: number
  readonly receivedAtMs: number
  /** How long it took from the request on, waits on purpose not counted. */
  readonly delayMs: number
  /** "No such thing" may mean "not yet". */
  readonly isSettling: () => boolean
  /** What is stored under the same key already. */
  readonly siblings: () => readonly StoredAnswer[]
}

// An answer that depends on more fields than this depends on everything.
const SELECTING_FIELDS = 32

export type Keeper = {
  /** Whether anything speaks for keeping an answer; most answers of most providers have nothing to store them by. */
  mayKeep(status: number, fields: Fields): boolean
  /** The draft of a stored answer, undefined where it must not or need not be stored. */
  draft(arrival: Arrival): Draft | undefined
}

/** Decides what is kept of an answer and for how long: the provider's word first, then the operator's, then a guess. */
export function keeper(options: CacheOptions): Keeper {
  const { mode } = options
  const controlOf = controlReader(mode)
  const alwaysSelecting = options.vary.map((name) => name.toLowerCase())
  const ruleOf = firstRoute(options.rules.map((rule) => rule.match))
  const negative = new Map(Object.entries(options.negative).map(([status, ttlMs]) => [Number(status), ttlMs]))

  function mayKeep(status: number, fields: Fields): boolean {
    // none: the agreement says that this status tells nothing lasting
    const negativeMs = negative.get(status)
    return negativeMs !== 0 && (negativeMs !== undefined || options.rules.length > 0 || saysAnything(fields))
  }

  function draft(arrival: Arrival): Draft | undefined {
    const { request, status, receivedAtMs } = arrival
    const control = controlOf(arrival.fields)
    const explicitMs = explicitLifetimeMs(control, arrival.fields, mode, receivedAtMs)
    const local = explicitMs === undefined && !control.isNoCache ? localLifetime(arrival, control) : undefined
    const isAuthenticated = request.credential !== undefined || hasField(request.fields, 'authorization')
    const isLocallyAllowed = local !== undefined && local.policy !== 'heuristic'
    if (!isStorable(status, arrival.fields, control, { mode, isAuthenticated, isLocallyAllowed })) return undefined
    const own = varyNames(arrival.fields)
    if (own === '*') return undefined
    // some servers forget Vary on some answers: the latest one that had it tells what the choice depends on (RFC 9111 §4.1)
    const names =
      own.length > 0
        ? own
        : (arrival
            .siblings()
            .find((sibling) => sibling.isNegotiated)
            ?.selecting.map(({ name }) => name) ?? [])
    const wanted = [...new Set([...names, ...alwaysSelecting])]
    if (wanted.length > SELECTING_FIELDS) return undefined
    const fields = dated(storableFields(arrival.fields, control, mode), receivedAtMs)
    const ageMs = arrivalAgeMs(arrival.fields, receivedAtMs, arrival.delayMs)
    const kept: Draft = {
      key: arrival.key,
      target: request.target,
      status,
      fields,
      control,
      validators: validatorsOf(fields, dateMs(fields, receivedAtMs)),
      selecting: selecting(wanted, request.fields),
      isNegotiated: own.length > 0,
      language: own.includes('accept-language') ? field(fields, 'content-language')?.trim().toLowerCase() : undefined,
      arrivedAt: arrival.arrivedAt,
      arrivalAgeMs: ageMs,
      delayAgeMs: ageMs - arrivalAgeMs(arrival.fields, receivedAtMs, 0),
      lifetimeMs: explicitMs ?? local?.ms ?? 0,
      isExplicit: explicitMs !== undefined,
      local: local?.policy
    }
    return isWorthKeeping(kept) ? kept : undefined
  }

  function localLifetime(arrival: Arrival, control: ResponseControl): { ms: number; policy: LocalPolicy } | undefined {
    const { status, request } = arrival
    const negativeMs = arrival.isSettling() ? undefined : negative.get(status)
    if (negativeMs !== undefined) return { ms: negativeMs, policy: 'negative' }
    const isSuccess = status >= 200 && status < 300 && HEURISTICALLY_CACHEABLE.has(status)
    const rule = isSuccess && options.rules.length > 0 ? options.rules[ruleOf('GET', pathOf(request.target))] : undefined
    if (rule !== undefined) return { ms: rule.ttl, policy: 'rule' }
    if (!options.heuristic || !(HEURISTICALLY_CACHEABLE.has(status) || control.isPublic)) return undefined
    const ms = heuristicLifetimeMs(arrival.fields, arrival.receivedAtMs)
    return ms > 0 ? { ms, policy: 'heuristic' } : undefined
  }

  // What can neither be used nor validated later would only take room.
  function isWorthKeeping(kept: Draft): boolean {
    const { control, validators } = kept
    if (validators.etag !== undefined || validators.lastModified !== undefined) return true
    if (control.isNoCache) return false
    if (kept.lifetimeMs > 0) return true
    const staleS = Math.max(control.staleIfErrorS ?? 0, control.staleWhileRevalidateS ?? 0)
    return staleS > 0 || (options.staleIfError ?? 0) > 0 || options.staleWhileRevalidate > 0
  }

  return { mayKeep, draft }
}

/** With a readable `Date`, the time of receipt where the provider sent none (RFC 9110 §6.6.1). */
export function dated(fields: Fields, receivedAtMs: number): Fields {
  const date = field(fields, 'date')
  return date !== undefined && parseStrictHttpDate(date, receivedAtMs) !== undefined ? fields : withField(fields, 'Date', httpDate(receivedAtMs))
}

/** Whether an answer has any field that could make it worth storing: a directive, a lifetime, a validator. */
function saysAnything(fields: Fields): boolean {
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string
    switch (name.length) {
      case 4:
        if (isNamed(name, 'etag')) return true
        break
      case 7:
        if (isNamed(name, 'expires')) return true
        break
      case 13:
        if (isNamed(name, 'cache-control') || isNamed(name, 'last-modified')) return true
        break
      case 17:
      case 21:
        if (name.toLowerCase().endsWith('-cache-control')) return true
        break
      default:
    }
  }
  return false
}
