import { parseDictionary, parseList } from 'structured-headers'
import { field, fieldList, isNamed, type Fields } from './fields.ts'
import { parseHttpDate } from './http-date.ts'

/** What is left of a quota, and after how many milliseconds it is whole again. */
export type Quota = { readonly remaining: number; readonly resetMs: number }

// A reset further away than this is a misread unit or a quota no proxy should enforce on a hint alone.
const FARTHEST_RESET_MS = 86_400_000

/**
 * The tightest quota an answer announces, undefined where it announces none that can be read.
 *
 * Reads `RateLimit` (draft-ietf-httpapi-ratelimit-headers: a list of `"name";r=50;t=30`, in earlier drafts the dictionary
 * `remaining=50, reset=30`), the triple `RateLimit-Remaining` and `-Reset` before it, and `X-RateLimit-*` and
 * `X-Rate-Limit-*`, whose reset may be seconds, a time in epoch seconds or milliseconds, or a date. Tightest is the one
 * with the fewest left, among equals the one that lasts longest. An answer from a cache on the way (`Age` above 0) tells
 * of the past and is ignored. `wallNowMs` is real time in epoch milliseconds.
 */
export function tightestQuota(fields: Fields, wallNowMs: number): Quota | undefined {
  if (!mentionsRateLimit(fields)) return undefined
  if (Number(field(fields, 'age') ?? 0) > 0) return undefined
  let tightest: Quota | undefined
  for (const quota of [
    ...structured(fields),
    ...triple(fields, 'ratelimit', wallNowMs),
    ...triple(fields, 'x-ratelimit', wallNowMs),
    ...triple(fields, 'x-rate-limit', wallNowMs)
  ]) {
    if (!(quota.remaining >= 0 && quota.resetMs >= 0 && quota.resetMs <= FARTHEST_RESET_MS)) continue
    if (tightest === undefined || quota.remaining < tightest.remaining || (quota.remaining === tightest.remaining && quota.resetMs > tightest.resetMs))
      tightest = quota
  }
  return tightest
}

// Runs for every answer: one pass over the names, no lower-casing unless the length fits.
function mentionsRateLimit(fields: Fields): boolean {
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string
    switch (name.length) {
      case 9:
        if (isNamed(name, 'ratelimit')) return true
        break
      case 19:
        if (isNamed(name, 'ratelimit-remaining')) return true
        break
      case 21:
        if (isNamed(name, 'x-ratelimit-remaining')) return true
        break
      case 22:
        if (isNamed(name, 'x-rate-limit-remaining')) return true
        break
      default:
    }
  }
  return false
}

function structured(fields: Fields): Quota[] {
  const text = fieldList(fields, 'ratelimit')
  if (text === undefined) return []
  try {
    return parseList(text).flatMap(([, parameters]) => quota(parameters.get('r'), parameters.get('t')))
  } catch {
    return dictionary(text)
  }
}

function dictionary(text: string): Quota[] {
  try {
    const members = parseDictionary(text)
    return quota(members.get('remaining')?.[0], members.get('reset')?.[0])
  } catch {
    // the draft asks to ignore what is malformed
    return []
  }
}

function quota(remaining: unknown, resetSeconds: unknown): Quota[] {
  return typeof remaining === 'number' && typeof resetSeconds === 'number' ? [{ remaining, resetMs: resetSeconds * 1000 }] : []
}

function triple(fields: Fields, prefix: string, wallNowMs: number): Quota[] {
  const remaining = field(fields, `${prefix}-remaining`)
  const reset = field(fields, `${prefix}-reset`)
  if (remaining === undefined || reset === undefined || !/^\s*\d+/.test(remaining)) return []
  const resetMs = resetFrom(reset.trim(), wallNowMs)
  return resetMs === undefined ? [] : [{ remaining: Number.parseInt(remaining, 10), resetMs }]
}

// nobody waits for 10^9 seconds, so such a number is a time
function resetFrom(reset: string, wallNowMs: number): number | undefined {
  if (!/^\d+(?:\.\d+)?$/.test(reset)) {
    const at = parseHttpDate(reset, wallNowMs)
    return at === undefined ? undefined : Math.max(0, at - wallNowMs)
  }
  const value = Number(reset)
  if (value > 1e12) return Math.max(0, value - wallNowMs)
  if (value > 1e9) return Math.max(0, value * 1000 - wallNowMs)
  return value * 1000
}
