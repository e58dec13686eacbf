import { DURATION } from '../../exchange/options.ts'
import { field, type Fields } from '../../http/fields.ts'
import { parseHttpDate } from '../../http/http-date.ts'

/** How long the secret in an answer is still good for, in milliseconds; undefined where the answer does not say. */
export type ReadValidity = (body: string, fields: Fields, wallNow: number) => number | undefined

/** `sas`, `field:a.b` or a duration. */
export const EXPIRES = `^(?:sas|field:[^.\\s]+(?:\\.[^.\\s]+)*|${DURATION.source.slice(1, -1)})$`

const UNIT_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
// What claims to be good for longer is asked for again once a year.
const LONGEST_MS = 365 * 86_400_000

/**
 * Makes the reader of one rule's `expires`:
 *
 * - `field:expiresAt`: a member of the JSON body, found by a dotted path (`data.0.end` into a list): a date, epoch
 *   seconds or milliseconds, or seconds left;
 * - `sas`: the earliest `se=` parameter of an Azure shared access signature anywhere in the body, percent-encoded or not;
 * - a duration: fixed, whatever the answer says.
 *
 * Where the answer's own `Date` shows that the clocks differ, dates count from that, so that ours need not be right.
 */
export function validityReader(expires: string): ReadValidity {
  if (expires === 'sas') return (body, fields, wallNow) => bounded(signatureEnd(body), serviceNow(fields, wallNow))
  if (expires.startsWith('field:')) {
    const path = expires.slice('field:'.length).split('.')
    return (body, fields, wallNow) => {
      const value = memberAt(body, path)
      const left = secondsLeft(value)
      return left === undefined ? bounded(dateOf(value), serviceNow(fields, wallNow)) : bounded(left, 0)
    }
  }
  const [, amount, unit] = DURATION.exec(expires) ?? []
  const fixedMs = Number(amount) * (UNIT_MS[unit ?? ''] ?? Number.NaN)
  return () => bounded(fixedMs, 0)
}

function bounded(end: number | undefined, now: number): number | undefined {
  const leftMs = (end ?? Number.NaN) - now
  return leftMs > 0 ? Math.min(leftMs, LONGEST_MS) : undefined
}

// Below this a difference is the second that `Date` cannot show, and the way here: our own clock is the more exact one.
const SKEW_THAT_MATTERS_MS = 5_000

/** The time at the service, as its answer tells it (RFC 9110 §6.6.1). */
function serviceNow(fields: Fields, wallNow: number): number {
  const date = parseHttpDate(field(fields, 'date') ?? '', wallNow) ?? wallNow
  return Math.abs(date - wallNow) > SKEW_THAT_MATTERS_MS ? date : wallNow
}

// Between a minute and half a century: below are seconds left, above are dates in seconds or milliseconds.
const FIRST_EPOCH_SECONDS = 1e9
const FIRST_EPOCH_MS = 1e12

function numberOf(value: unknown): number | undefined {
  const number = typeof value === 'string' && /^\d{1,15}(?:\.\d{1,9})?$/.test(value.trim()) ? Number(value) : value
  return typeof number === 'number' && Number.isFinite(number) ? number : undefined
}

function secondsLeft(value: unknown): number | undefined {
  const number = numberOf(value)
  return number === undefined || number >= FIRST_EPOCH_SECONDS ? undefined : number * 1000
}

function dateOf(value: unknown): number | undefined {
  const number = numberOf(value)
  if (number !== undefined) return number >= FIRST_EPOCH_MS ? number : number >= FIRST_EPOCH_SECONDS ? number * 1000 : undefined
  return typeof value === 'string' ? (isoDate(value.trim()) ?? parseHttpDate(value.trim())) : undefined
}

const ISO_DATE = /^\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(Z|z|[+-]\d\d:?\d\d)?)?$/

/** ISO 8601 as services write it: without seconds, without a zone (UTC then), or a day alone. */
function isoDate(text: string): number | undefined {
  const parts = ISO_DATE.exec(text)
  if (parts === null) return undefined
  const isDay = text.length === 10
  const at = Date.parse(`${text.replace(/[t ]/, 'T')}${isDay || parts[1] !== undefined ? '' : 'Z'}`)
  return Number.isNaN(at) ? undefined : at
}

function memberAt(body: string, path: readonly string[]): unknown {
  let value: unknown
  try {
    value = JSON.parse(body.replace(/^\uFEFF/, ''))
  } catch {
    // no JSON, so no such member: the caller says so in its own words
    return undefined
  }
  for (const name of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined
    value = Object.entries(value).find(([key]) => key === name)?.[1]
  }
  return value
}

/** The end of the signature that ends first; a connection string may hold one inside an encoded URL, inside JSON. */
function signatureEnd(body: string): number | undefined {
  const plain = decoded(decoded(body))
  const ends = [...plain.matchAll(/(?:^|[^A-Za-z0-9])se=([0-9TtZz:.+-]{8,40})/g)].map(([, value]) => dateOf(value)).filter((end) => end !== undefined)
  return ends.length === 0 ? undefined : Math.min(...ends)
}

const ESCAPES: Readonly<Record<string, string>> = { '25': '%', '26': '&', '2b': '+', '3a': ':', '3d': '=', '3f': '?' }

// Only the characters that matter here: the whole need not be well-formed.
function decoded(text: string): string {
  return text
    .replaceAll(/\\u00(26|2b|3d)/gi, (_, code: string) => ESCAPES[code.toLowerCase()] ?? '')
    .replaceAll('&amp;', '&')
    .replaceAll(/%(25|26|2b|3a|3d|3f)/gi, (_, code: string) => ESCAPES[code.toLowerCase()] ?? '')
}
