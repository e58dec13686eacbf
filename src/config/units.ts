import { isAbsolute, resolve } from 'node:path'
import { DURATION, RATE, SIZE, type ListenAddress, type Rate } from '../exchange/options.ts'

const DURATION_MS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const SIZE_BYTES: Record<string, number> = { B: 1, KB: 1e3, MB: 1e6, GB: 1e9, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 }

/** Ten years: anything longer is a slip of the pen, and sums of a few such durations stay exact. */
const LONGEST_MS = 3650 * 86_400_000

/** `250ms 10s 5m 1h 30d` as milliseconds; undefined where the text is none, or longer than ten years. */
export function parseDuration(text: string): number | undefined {
  const [, amount, unit] = DURATION.exec(text) ?? []
  if (amount === undefined || unit === undefined) return undefined
  const ms = Number(amount) * (DURATION_MS[unit] ?? Number.NaN)
  return ms <= LONGEST_MS ? ms : undefined
}

/** Milliseconds as people write them, in the largest unit that leaves no fraction: 150000 is `150s`. */
export function formatDuration(ms: number): string {
  const unit = (['d', 'h', 'm', 's'] as const).find((candidate) => ms > 0 && ms % (DURATION_MS[candidate] ?? Number.NaN) === 0)
  if (unit === undefined) return ms === 0 ? '0s' : `${ms}ms`
  return `${ms / (DURATION_MS[unit] ?? Number.NaN)}${unit}`
}

/** `64KiB 6MB` as whole bytes; undefined where the text is none, or no exact number. */
export function parseSize(text: string): number | undefined {
  const [, amount, unit] = SIZE.exec(text) ?? []
  if (amount === undefined || unit === undefined) return undefined
  const bytes = Math.round(Number(amount) * (SIZE_BYTES[unit] ?? Number.NaN))
  return Number.isSafeInteger(bytes) ? bytes : undefined
}

/** `100/1m` as a count in a window; undefined where the text is none, or count or window is nothing. */
export function parseRate(text: string): Rate | undefined {
  const [, amount, window] = RATE.exec(text) ?? []
  if (amount === undefined || window === undefined) return undefined
  const count = Number(amount)
  const windowMs = parseDuration(window)
  if (!Number.isSafeInteger(count) || count < 1 || windowMs === undefined || windowMs < 1) return undefined
  return { count, windowMs, label: text }
}

const DATE = /^(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.\d+)?)?(?:[Zz]|[+-]\d\d:\d\d))?$/

/** `2028-01-31` (midnight UTC) or an RFC 3339 date-time as epoch milliseconds; undefined for days that do not exist. */
export function parseDate(text: string): number | undefined {
  const parts = DATE.exec(text)
  if (parts === null) return undefined
  const [year, month, day] = [Number(parts[1]), Number(parts[2]), Number(parts[3])]
  // Date.parse would turn 31 February into 3 March
  const calendar = new Date(Date.UTC(year, month - 1, day))
  if (calendar.getUTCMonth() !== month - 1 || calendar.getUTCDate() !== day) return undefined
  const at = Date.parse(text.replace(' ', 'T'))
  return Number.isNaN(at) ? undefined : at
}

/** `HOST:PORT`, `[IPV6]:PORT` or `unix:/path` in parts; a socket path is relative to `folder`. Undefined where it is none. */
export function parseListen(text: string, folder: string): ListenAddress | undefined {
  if (text.startsWith('unix:')) {
    const path = text.slice('unix:'.length)
    return path === '' ? undefined : { kind: 'unix', path: isAbsolute(path) ? path : resolve(folder, path) }
  }
  const [, bracketed, plain, digits] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:/\s[\]]+)):(\d{1,5})$/.exec(text) ?? []
  const host = bracketed ?? plain
  const port = Number(digits)
  if (host === undefined || port > 65_535) return undefined
  return { kind: 'tcp', host, port }
}
