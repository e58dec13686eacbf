import { field, fieldValues, type Fields } from './fields.ts'
import { parseHttpDate } from './http-date.ts'

// Within this much a provider's clock agrees with ours: `Date` has whole seconds and was written before it travelled.
const SAME_CLOCK_MS = 2_000
// A `Date` further off than this says nothing about the provider's clock: it is made up or was stored.
const LARGEST_SKEW_MS = 86_400_000
// Later than any date; keeps sums with clock times exact.
const LONGEST_WAIT_MS = 1e13

/**
 * How long the provider asks to be left alone (`Retry-After`, RFC 9110 §10.2.3), in milliseconds from now.
 *
 * Seconds or a date, which may have a wrong weekday or `UTC`; a date that has passed is 0. A date is measured on the
 * provider's own clock where its `Date` shows that the clocks differ. Fractions are allowed, since waiting 1.5 s is safer
 * than not waiting. Of several values the longest counts. Undefined where there is none that can be read (`-5`, `abc`).
 * `wallNowMs` is real time in epoch milliseconds.
 */
export function retryAfterMs(fields: Fields, wallNowMs: number): number | undefined {
  let longest: number | undefined
  for (const value of fieldValues(fields, 'retry-after')) {
    const waitMs = delayMs(value) ?? untilDateMs(value, fields, wallNowMs)
    if (waitMs !== undefined) longest = Math.max(longest ?? 0, waitMs)
  }
  return longest
}

// a list is not legal here, but two fields joined by an intermediary look like one
function delayMs(value: string): number | undefined {
  if (!/^\s*\d+(?:\.\d+)?(?:\s*,\s*\d+(?:\.\d+)?)*\s*$/.test(value)) return undefined
  const seconds = Math.max(...value.split(',').map(Number))
  return Math.min(Math.ceil(seconds * 1000), LONGEST_WAIT_MS)
}

function untilDateMs(value: string, fields: Fields, wallNowMs: number): number | undefined {
  const at = parseHttpDate(value, wallNowMs)
  if (at === undefined) return undefined
  return Math.min(Math.max(0, at - providerNow(fields, wallNowMs)), LONGEST_WAIT_MS)
}

function providerNow(fields: Fields, wallNowMs: number): number {
  const date = field(fields, 'date')
  const said = date === undefined ? undefined : parseHttpDate(date, wallNowMs)
  if (said === undefined) return wallNowMs
  const skewMs = Math.abs(said - wallNowMs)
  return skewMs <= SAME_CLOCK_MS || skewMs > LARGEST_SKEW_MS ? wallNowMs : said
}
