import { expect, test } from 'vitest'
import { retryAfterMs } from '../../../src/http/retry-after.ts'

const NOW = Date.UTC(2026, 5, 1, 12, 0, 0)

test.each([
  ['1', 1000],
  ['0', 0],
  ['120', 120_000],
  ['86400', 86_400_000],
  ['1.5', 1500],
  ['0.0001', 1],
  [' 7 ', 7000],
  ['30, 120', 120_000],
  ['Mon, 01 Jun 2026 12:00:45 GMT', 45_000],
  ['Sun, 01 Jun 2026 12:00:45 GMT', 45_000],
  ['Mon, 01 Jun 2026 12:00:45 UTC', 45_000],
  ['Monday, 01-Jun-26 12:00:45 GMT', 45_000],
  ['Mon Jun  1 12:00:45 2026', 45_000],
  ['Mon, 01 Jun 2026 11:00:00 GMT', 0],
  ['Fri, 01 Jan 2037 00:00:00 GMT', Date.UTC(2037, 0, 1) - NOW],
  ['-5', undefined],
  ['abc', undefined],
  ['', undefined],
  ['1e20', undefined],
  ['0x10', undefined],
  ['Infinity', undefined],
  ['99 Foo 2026', undefined]
])('Retry-After %j asks for %s ms', (value, expected) => {
  expect(retryAfterMs(['Retry-After', value], NOW)).toBe(expected)
})

test('an absurd number of seconds stays a number one can add to a clock', () => {
  const waitMs = retryAfterMs(['retry-after', '9'.repeat(400)], NOW)
  expect(Number.isSafeInteger(NOW + (waitMs ?? Number.NaN))).toBe(true)
})

test('of two fields the longer one counts, and one that cannot be read does not hide the other', () => {
  expect(retryAfterMs(['retry-after', '5', 'Retry-After', '60', 'retry-after', 'soon'], NOW)).toBe(60_000)
})

test('no field, no wait', () => {
  expect(retryAfterMs(['Date', 'Mon, 01 Jun 2026 12:00:00 GMT'], NOW)).toBeUndefined()
})

test('a date is measured on the clock of a provider that lives in another time', () => {
  const fields = ['Date', 'Mon, 01 Jun 2026 11:30:00 GMT', 'Retry-After', 'Mon, 01 Jun 2026 11:30:20 GMT']
  expect(retryAfterMs(fields, NOW)).toBe(20_000)
})

test('whole seconds and travel in Date do not make a wait later than it was meant', () => {
  const fields = ['Date', 'Mon, 01 Jun 2026 11:59:59 GMT', 'Retry-After', 'Mon, 01 Jun 2026 12:00:10 GMT']
  expect(retryAfterMs(fields, NOW)).toBe(10_000)
})

test('three seconds apart are two clocks', () => {
  const fields = ['Date', 'Mon, 01 Jun 2026 11:59:57 GMT', 'Retry-After', 'Mon, 01 Jun 2026 12:00:07 GMT']
  expect(retryAfterMs(fields, NOW)).toBe(10_000)
})

test('a Date from another year is not a clock', () => {
  const fields = ['Date', 'Thu, 01 Jan 2015 00:00:00 GMT', 'Retry-After', 'Mon, 01 Jun 2026 12:00:10 GMT']
  expect(retryAfterMs(fields, NOW)).toBe(10_000)
})
