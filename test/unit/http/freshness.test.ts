import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { responseControl } from '../../../src/http/cache-control.ts'
import { arrivalAgeMs, explicitLifetimeMs, heuristicLifetimeMs } from '../../../src/http/freshness.ts'
import { httpDate } from '../../../src/http/http-date.ts'

const NOW = Date.UTC(2026, 5, 1, 12)

function lifetime(fields: readonly string[], mode: 'private' | 'shared' = 'private'): number | undefined {
  return explicitLifetimeMs(responseControl(fields, mode), fields, mode, NOW)
}

describe('RFC 9111 §4.2.1: freshness lifetime', () => {
  test('s-maxage (shared), then max-age, then Expires minus Date', () => {
    const expires = ['Date', httpDate(NOW - 100_000), 'Expires', httpDate(NOW)]
    expect(lifetime(['Cache-Control', 'max-age=5, s-maxage=7', ...expires], 'shared')).toBe(7000)
    expect(lifetime(['Cache-Control', 'max-age=5, s-maxage=7', ...expires])).toBe(5000)
    expect(lifetime(expires)).toBe(100_000)
    expect(lifetime([])).toBeUndefined()
  })

  test('both dates may be off: only their difference counts', () => {
    expect(lifetime(['Date', httpDate(NOW + 400_000), 'Expires', httpDate(NOW + 300_000)])).toBe(0)
    expect(lifetime(['Date', httpDate(NOW - 400_000), 'Expires', httpDate(NOW - 300_000)])).toBe(100_000)
  })

  test('a missing or unreadable Date is the time of receipt', () => {
    for (const date of [[], ['Date', 'foo']]) expect(lifetime([...date, 'Expires', httpDate(NOW + 10_000)])).toBe(10_000)
  })

  test.each([
    '0',
    '-1',
    '',
    'foo',
    'Thu, 18 Aug 2050 02:01:18 UTC',
    'Thu, 18 Aug 2050 2:01:18 GMT',
    'Thu, 18-Aug-2050 02:01:18 GMT',
    'Thu 18 Aug 2050 02:01:18 GMT'
  ])('an Expires that is no date is in the past: %s', (expires) => {
    expect(lifetime(['Expires', expires])).toBe(0)
  })

  test('dates are read in any case', () => {
    expect(lifetime(['Date', httpDate(NOW), 'Expires', httpDate(NOW + 60_000).toUpperCase()])).toBe(60_000)
  })

  test('of two Expires the earlier counts, and an unreadable one is the earliest', () => {
    expect(lifetime(['Expires', httpDate(NOW + 60_000), 'Expires', httpDate(NOW + 5000)])).toBe(5000)
    expect(lifetime(['Expires', httpDate(NOW + 60_000), 'Expires', 'x'])).toBe(0)
  })

  test('Expires counts for nothing beside a targeted field (RFC 9213 §2.2)', () => {
    expect(lifetime(['Attache-Cache-Control', 'public', 'Expires', httpDate(NOW + 60_000)])).toBeUndefined()
  })
})

describe('RFC 9111 §4.2.2: heuristic', () => {
  test('a tenth of the time since the last change, at most a day, never negative', () => {
    expect(heuristicLifetimeMs(['Last-Modified', httpDate(NOW - 1_000_000)], NOW)).toBe(100_000)
    expect(heuristicLifetimeMs(['Last-Modified', 'Thu, 01 Jan 1970 00:00:00 GMT'], NOW)).toBe(86_400_000)
    expect(heuristicLifetimeMs(['Last-Modified', httpDate(NOW + 1_000_000)], NOW)).toBe(0)
    expect(heuristicLifetimeMs(['Last-Modified', 'foo'], NOW)).toBe(0)
    expect(heuristicLifetimeMs([], NOW)).toBe(0)
  })
})

describe('RFC 9111 §4.2.3: age', () => {
  test('the apparent age, in whole seconds, never negative', () => {
    expect(arrivalAgeMs(['Date', httpDate(NOW - 7000)], NOW + 900, 0)).toBe(7000)
    expect(arrivalAgeMs(['Date', httpDate(NOW + 60_000)], NOW, 0)).toBe(0)
    expect(arrivalAgeMs([], NOW, 0)).toBe(0)
  })

  test('the time the answer took counts with an Age and without one', () => {
    expect(arrivalAgeMs([], NOW, 5000)).toBe(5000)
    expect(arrivalAgeMs(['Date', httpDate(NOW + 60_000)], NOW, 5000)).toBe(5000)
    expect(arrivalAgeMs(['Age', 'abc'], NOW, 5000)).toBe(5000)
    expect(arrivalAgeMs(['Date', httpDate(NOW - 7000)], NOW, 5000)).toBe(7000)
  })

  test('the age value counts from the request on, and the larger of both holds', () => {
    expect(arrivalAgeMs(['Age', '30', 'Date', httpDate(NOW)], NOW, 2500)).toBe(32_500)
    expect(arrivalAgeMs(['Age', '3', 'Date', httpDate(NOW - 60_000)], NOW, 2500)).toBe(60_000)
  })

  test.each([
    ['7200, 0', 7200],
    ['0, 7200', 0],
    ['0007', 7],
    ['abc', 0],
    ['7200.0', 0],
    ['"7200"', 0],
    ['', 0],
    ['999999999999', 2 ** 31],
    ['-1', 2 ** 31],
    ['-7200', 2 ** 31]
  ])('Age: %s counts as %i seconds (§5.1: the first member; what is no number is ignored; below zero is as old as can be)', (age, seconds) => {
    expect(arrivalAgeMs(['Age', age], NOW, 0)).toBe(seconds * 1000)
  })

  test('of several lines the first counts', () => {
    expect(arrivalAgeMs(['Age', '5', 'Age', '7200'], NOW, 0)).toBe(5000)
  })

  test('whatever is sent, an age is a number from 0 to 2^31 seconds', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), fc.nat(), (age, date, delayMs) => {
        const result = arrivalAgeMs(['Age', age, 'Date', date], NOW, delayMs)
        expect(result).toBeGreaterThanOrEqual(0)
        expect(result).toBeLessThanOrEqual(2 ** 31 * 1000)
      })
    )
  })
})
