import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { httpDate, parseHttpDate, parseStrictHttpDate } from '../../../src/http/http-date.ts'

const THEN = Date.UTC(1994, 10, 6, 8, 49, 37)

describe('RFC 9110 §5.6.7: dates', () => {
  test.each(['Sun, 06 Nov 1994 08:49:37 GMT', 'Sunday, 06-Nov-94 08:49:37 GMT', 'Sun Nov  6 08:49:37 1994'])(
    'a recipient accepts all three forms: %s',
    (text) => {
      expect(parseStrictHttpDate(text)).toBe(THEN)
      expect(parseHttpDate(text)).toBe(THEN)
    }
  )

  test('a two-digit year more than 50 years ahead is in the past', () => {
    const now = Date.UTC(2026, 5, 1)
    expect(parseStrictHttpDate('Sunday, 06-Nov-77 08:49:37 GMT', now)).toBe(Date.UTC(1977, 10, 6, 8, 49, 37))
    expect(parseStrictHttpDate('Friday, 06-Nov-76 08:49:37 GMT', now)).toBe(Date.UTC(2076, 10, 6, 8, 49, 37))
  })

  test('dates are matched in any case (RFC 9111 §4.2)', () => {
    expect(parseStrictHttpDate('SUN, 06 nov 1994 08:49:37 gmt')).toBe(THEN)
  })

  test.each([
    'Sun, 06 Nov 1994 08:49:37 UTC',
    'Sun, 06 Nov 1994 08:49:37 EST',
    'Sun, 06 Nov 1994 08:49:37 +0000',
    'Sun, 06 Nov 1994 08:49:37',
    'Sun, 6 Nov 1994 08:49:37 GMT',
    'Sun, 06 Nov 94 08:49:37 GMT',
    'Sun, 06-Nov-1994 08:49:37 GMT',
    'Sun 06 Nov 1994 08:49:37 GMT',
    'Sun, 06  Nov 1994 08:49:37 GMT',
    'Sun, 06 Nov 1994 8:49:37 GMT',
    'Sun, 06 Nov 1994 08.49.37 GMT',
    '06 Nov 1994 08:49:37 GMT',
    '1994-11-06T08:49:37Z',
    '0',
    '-1',
    '',
    '784111777'
  ])('anything else is no date for a cache: %s', (text) => {
    expect(parseStrictHttpDate(text)).toBeUndefined()
  })

  test.each([
    ['another weekday', 'Mon, 06 Nov 1994 08:49:37 GMT'],
    ['UTC', 'Sun, 06 Nov 1994 08:49:37 UTC'],
    ['a numeric zone', 'Sun, 06 Nov 1994 09:49:37 +0100'],
    ['no zone', 'Sun, 06 Nov 1994 08:49:37'],
    ['a one-digit day', 'Sun, 6 Nov 1994 08:49:37 GMT'],
    ['dashes with a long year', 'Sun, 06-Nov-1994 08:49:37 GMT'],
    ['no weekday', '06 Nov 1994 08:49:37 GMT'],
    ['asctime with one space', 'Sun Nov 6 08:49:37 1994']
  ])('the tolerant reading accepts %s', (_what, text) => {
    expect(parseHttpDate(text)).toBe(THEN)
  })

  test.each([
    'Sun, 31 Feb 1994 08:49:37 GMT',
    'Sun, 06 Nov 1994 24:49:37 GMT',
    'Sun, 06 Nov 1994 08:60:37 GMT',
    'Sun, 06 Foo 1994 08:49:37 GMT',
    'soon',
    '120',
    'x'.repeat(100_000)
  ])('what is no instant is no date in either reading: %.40s', (text) => {
    expect(parseStrictHttpDate(text)).toBeUndefined()
    expect(parseHttpDate(text)).toBeUndefined()
  })

  test('a written date reads back to the same second, in both readings', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: Date.UTC(9999, 11, 31) / 1000 }), (seconds) => {
        const text = httpDate(seconds * 1000)
        expect(parseStrictHttpDate(text)).toBe(seconds * 1000)
        expect(parseHttpDate(text)).toBe(seconds * 1000)
      })
    )
  })

  test('no text makes it throw', () => {
    fc.assert(fc.property(fc.string(), (text) => void parseHttpDate(text)))
  })
})
