import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { formatDuration, parseDate, parseDuration, parseListen, parseRate, parseSize } from '../../../src/config/units.ts'

const DURATIONS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const SIZES = { B: 1, KB: 1000, MB: 1e6, GB: 1e9, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 }
const durationUnit = fc.constantFrom(...(Object.keys(DURATIONS) as (keyof typeof DURATIONS)[]))
const sizeUnit = fc.constantFrom(...(Object.keys(SIZES) as (keyof typeof SIZES)[]))

describe('durations', () => {
  test('are the amount times the unit', () => {
    fc.assert(fc.property(fc.nat(3650), durationUnit, (amount, unit) => parseDuration(`${amount}${unit}`) === amount * DURATIONS[unit]))
  })

  test('may have a fraction', () => {
    expect(parseDuration('1.5s')).toBe(1500)
    expect(parseDuration('0.5h')).toBe(1_800_000)
  })

  test('survive being written and read again', () => {
    fc.assert(fc.property(fc.nat(86_400_000 * 365), (ms) => parseDuration(formatDuration(ms)) === ms))
  })

  test('are written in the largest unit without a fraction', () => {
    expect([0, 250, 10_000, 150_000, 300_000, 3_600_000, 86_400_000].map(formatDuration)).toEqual(['0s', '250ms', '10s', '150s', '5m', '1h', '1d'])
  })

  test('of any text are a number of milliseconds up to ten years, or nothing', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[0-9.]{1,400}(ms|s|m|h|d)$/)), (text) => {
        const ms = parseDuration(text)
        expect(ms === undefined || (ms >= 0 && ms <= 3650 * 86_400_000)).toBe(true)
      })
    )
  })

  test.each(['10', '10 s', 's', '-1s', '1e3s', '10S', '1m30s', ' 10s', '10s ', '', '4000d', `${'9'.repeat(400)}d`])('%j is none', (text) => {
    expect(parseDuration(text)).toBeUndefined()
  })
})

describe('sizes', () => {
  test('are the amount times the unit', () => {
    fc.assert(fc.property(fc.nat(4096), sizeUnit, (amount, unit) => parseSize(`${amount}${unit}`) === amount * SIZES[unit]))
  })

  test('are whole bytes', () => {
    expect(parseSize('1.5KiB')).toBe(1536)
    expect(parseSize('0.3KB')).toBe(300)
  })

  test.each(['64', '64K', '64kb', '64 KiB', '-1B', '', `${'9'.repeat(30)}GiB`])('%j is none', (text) => {
    expect(parseSize(text)).toBeUndefined()
  })
})

describe('rates', () => {
  test('are a count in a window, and keep their text', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1e9 }), fc.integer({ min: 1, max: 365 }), durationUnit, (count, amount, unit) => {
        const label = `${count}/${amount}${unit}`
        expect(parseRate(label)).toEqual({ count, windowMs: amount * DURATIONS[unit], label })
      })
    )
  })

  test.each(['100', '100/m', '0/1m', '100/0s', '-1/1m', '1.5/1m', '100 / 1m', '100/1m/2h', ''])('%j is none', (text) => {
    expect(parseRate(text)).toBeUndefined()
  })
})

describe('dates', () => {
  test('are midnight UTC where no time is given', () => {
    expect(parseDate('2028-01-31')).toBe(Date.UTC(2028, 0, 31))
  })

  test('with a time keep their zone', () => {
    expect(parseDate('2028-01-31T12:00:00Z')).toBe(Date.UTC(2028, 0, 31, 12))
    expect(parseDate('2028-01-31 12:00:00+02:00')).toBe(Date.UTC(2028, 0, 31, 10))
    expect(parseDate('2028-01-31T12:00:00.250Z')).toBe(Date.UTC(2028, 0, 31, 12, 0, 0, 250))
  })

  test('of any day that exists are read back', () => {
    fc.assert(
      fc.property(fc.date({ min: new Date(0), max: new Date('2100-01-01'), noInvalidDate: true }), (date) => {
        expect(parseDate(date.toISOString())).toBe(date.getTime())
      })
    )
  })

  test.each(['2027-02-29', '2028-02-30', '2028-13-01', '2028-00-10', '2028-1-1', '31.01.2028', '2028-01-31T25:00:00Z', '2028-01-31T12:00:00', 'tomorrow', ''])(
    '%j is none',
    (text) => {
      // a time without a zone would mean another moment on each machine
      expect(parseDate(text)).toBeUndefined()
    }
  )
})

describe('listen addresses', () => {
  test.each([
    ['127.0.0.1:7600', { kind: 'tcp', host: '127.0.0.1', port: 7600 }],
    ['[::1]:7600', { kind: 'tcp', host: '::1', port: 7600 }],
    ['localhost:0', { kind: 'tcp', host: 'localhost', port: 0 }],
    ['unix:/run/attache.sock', { kind: 'unix', path: '/run/attache.sock' }],
    ['unix:run/attache.sock', { kind: 'unix', path: '/etc/attache/run/attache.sock' }]
  ])('%s is understood', (text, address) => {
    expect(parseListen(text, '/etc/attache')).toEqual(address)
  })

  test.each(['7600', ':7600', '127.0.0.1', '127.0.0.1:', '127.0.0.1:65536', '127.0.0.1:-1', '::1:7600', 'http://127.0.0.1:7600', 'unix:', 'a b:80', ''])(
    '%j is none',
    (text) => {
      expect(parseListen(text, '/')).toBeUndefined()
    }
  )
})
