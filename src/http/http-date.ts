/**
 * HTTP-dates (RFC 9110 §5.6.7): the fixed form, the two obsolete ones every recipient has to accept, and in the tolerant
 * reading the near misses that servers really send.
 */

const DAY_NAME = '(?:mon|tue|wed|thu|fri|sat|sun)'
const LONG_DAY_NAME = '(?:monday|tuesday|wednesday|thursday|friday|saturday|sunday)'
const MONTHS = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec']
const DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
const MONTH = `(?<month>${MONTHS.join('|')})`
const TIME = '(?<hour>\\d\\d):(?<minute>\\d\\d):(?<second>\\d\\d)'

// Case-insensitive although the grammar is not: RFC 9111 §4.2 asks caches to match so.
const RFC850_DATE = new RegExp(`^${LONG_DAY_NAME}, (?<day>\\d\\d)-${MONTH}-(?<year>\\d\\d) ${TIME} GMT$`, 'i')
const ASCTIME_DATE = new RegExp(`^${DAY_NAME} ${MONTH} (?<day>\\d\\d| \\d) ${TIME} (?<year>\\d{4})$`, 'i')
// IMF-fixdate, with numbered groups
const USUAL_DATE = new RegExp(`^${DAY_NAME}, (\\d\\d) (${MONTHS.join('|')}) (\\d{4}) (\\d\\d):(\\d\\d):(\\d\\d) GMT$`, 'i')
const STRICT_FORMS = [RFC850_DATE, ASCTIME_DATE]

const LOOSE_TIME = '(?<hour>\\d{1,2}):(?<minute>\\d\\d)(?::(?<second>\\d\\d)(?:\\.\\d+)?)?'
const ZONE = '(?:GMT|UTC|UT|Z|(?<zone>[+-]\\d{4}))'
const LOOSE_DATE = new RegExp(`^(?:[a-z]{3,9},?\\s+)?(?<day>\\d{1,2})[\\s-]${MONTH}[a-z]*[\\s-](?<year>\\d{4}|\\d\\d)\\s+${LOOSE_TIME}(?:\\s*${ZONE})?$`, 'i')
const LOOSE_ASCTIME = new RegExp(`^[a-z]{3,9},?\\s+${MONTH}[a-z]*\\s+(?<day>\\d{1,2})\\s+${LOOSE_TIME}(?:\\s+${ZONE})?\\s+(?<year>\\d{4})$`, 'i')
const LOOSE_FORMS = [LOOSE_DATE, LOOSE_ASCTIME]

// far longer than any date: whoever sends more is not given regex time
const LONGEST_DATE = 64

/**
 * Reads a date the way a forgiving recipient should: any weekday name, `UTC` or a numeric zone, one-digit days, missing
 * seconds, besides the three forms of RFC 9110 §5.6.7. For dates where guessing right helps everybody (`Retry-After`).
 *
 * Gives epoch milliseconds, undefined where it is no date. `nowMs` decides the century of two-digit years: one that
 * seems more than 50 years ahead is in the past; without it the years 70 to 99 are of the 20th century.
 */
export function parseHttpDate(text: string, nowMs?: number): number | undefined {
  return read(text, [...STRICT_FORMS, ...LOOSE_FORMS], nowMs)
}

/**
 * Reads a date only where it is one of the three forms of RFC 9110 §5.6.7, in any case, in `GMT` (RFC 9111 §4.2): for
 * `Expires`, `Date` and `Last-Modified` a doubtful date has to count as none. Parameters as `parseHttpDate`.
 */
export function parseStrictHttpDate(text: string, nowMs?: number): number | undefined {
  return read(text, STRICT_FORMS, nowMs)
}

/** Writes a date in the fixed form (IMF-fixdate), rounded down to the second. */
export function httpDate(epochMs: number): string {
  return new Date(epochMs).toUTCString()
}

function read(text: string, forms: readonly RegExp[], nowMs: number | undefined): number | undefined {
  const trimmed = text.trim()
  if (trimmed.length > LONGEST_DATE) return undefined
  const usual = USUAL_DATE.exec(trimmed)
  // the spelling nearly everybody sends is read without looking for names
  if (usual !== null) {
    const [, day, month = '', year, hour, minute, second] = usual
    return instantOf(Number(year), MONTHS.indexOf(month.toLowerCase()), Number(day), Number(hour), Number(minute), Number(second))
  }
  for (const form of forms) {
    const parts = form.exec(trimmed)?.groups
    if (parts !== undefined) return epochMsOf(parts, nowMs)
  }
  return undefined
}

function epochMsOf(parts: Record<string, string | undefined>, nowMs: number | undefined): number | undefined {
  const month = MONTHS.indexOf((parts['month'] ?? '').toLowerCase())
  const year = yearOf(parts['year'] ?? '', nowMs)
  const instant = instantOf(year, month, Number(parts['day']), Number(parts['hour']), Number(parts['minute']), Number(parts['second'] ?? 0))
  return instant === undefined ? undefined : instant - offsetMs(parts['zone'])
}

function instantOf(year: number, month: number, day: number, hour: number, minute: number, second: number): number | undefined {
  // 60 is the leap second; it is the same instant as the next minute's 0
  if (hour > 23 || minute > 59 || second > 60 || day < 1) return undefined
  const isLeap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0)
  if (day > (month === 1 && isLeap ? 29 : (DAYS[month] ?? 0))) return undefined
  const instant = Date.UTC(year, month, day, hour, minute, second)
  // Date.UTC takes the years 0 to 99 for those of the 20th century
  return year > 99 ? instant : new Date(instant).setUTCFullYear(year)
}

function yearOf(digits: string, nowMs: number | undefined): number {
  const year = Number(digits)
  if (digits.length === 4) return year
  if (nowMs === undefined) return year < 70 ? 2000 + year : 1900 + year
  const thisYear = new Date(nowMs).getUTCFullYear()
  const thisCentury = thisYear - (thisYear % 100) + year
  return thisCentury > thisYear + 50 ? thisCentury - 100 : thisCentury
}

function offsetMs(zone: string | undefined): number {
  if (zone === undefined) return 0
  const minutes = Number(zone.slice(1, 3)) * 60 + Number(zone.slice(3, 5))
  return (zone.startsWith('-') ? -minutes : minutes) * 60_000
}
