import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { DAY_MS, daysLeft, dueAt, expiryOf, keyFindings, thresholdReached } from '../../../../src/tokens/keys/expiry.ts'

const END = Date.UTC(2027, 0, 31)
const life = (days: number): { notBefore: number; notAfter: number } => ({ notBefore: END - days * DAY_MS, notAfter: END })

describe('the end of a key', () => {
  test('is the certificate’s, or the config’s where that is earlier', () => {
    expect(expiryOf({ notBefore: 0, notAfter: 20, expiresAt: 10 })).toBe(10)
    expect(expiryOf({ notBefore: 0, notAfter: 10, expiresAt: 20 })).toBe(10)
    expect(expiryOf({ notBefore: undefined, notAfter: undefined, expiresAt: 20 })).toBe(20)
    expect(expiryOf({ notBefore: undefined, notAfter: undefined })).toBeUndefined()
  })

  test('is due four weeks before: two for the provider, two of lead', () => {
    expect(dueAt(END)).toBe(END - 28 * DAY_MS)
    expect(dueAt(END, 7 * DAY_MS)).toBe(END - 21 * DAY_MS)
  })

  test('leaves days rounded up', () => {
    expect(daysLeft(END, END - 1)).toBe(1)
    expect(daysLeft(END, END - DAY_MS)).toBe(1)
    expect(daysLeft(END, END - DAY_MS - 1)).toBe(2)
    expect(daysLeft(END, END)).toBe(0)
  })
})

describe('a threshold', () => {
  test.each([
    [30 * DAY_MS + 1, undefined],
    [30 * DAY_MS, 30],
    [28 * DAY_MS + 1, 30],
    [28 * DAY_MS, 28],
    [21 * DAY_MS, 21],
    [14 * DAY_MS, 14],
    [7 * DAY_MS, 7],
    [DAY_MS + 1, 7],
    [DAY_MS, 1],
    [1, 1],
    [0, 0],
    [-DAY_MS, 0]
  ])('with %i ms left is %s', (leftMs, threshold) => {
    expect(thresholdReached(END, END - leftMs)).toBe(threshold)
  })

  test('only ever falls as time passes', () => {
    fc.assert(
      fc.property(fc.integer({ min: -40, max: 40 }), fc.nat({ max: 20 }), (days, later) => {
        const now = END + days * DAY_MS
        expect(thresholdReached(END, now + later * DAY_MS) ?? Infinity).toBeLessThanOrEqual(thresholdReached(END, now) ?? Infinity)
      })
    )
  })
})

describe('what is found about a key', () => {
  const reasons = (...args: Parameters<typeof keyFindings>): string[] => keyFindings(...args).map((finding) => finding.reason)

  test('nothing, where it lasts two years and has time left', () => {
    expect(keyFindings(life(730), END - 60 * DAY_MS)).toEqual([])
  })

  test('a day more than two years is refused', () => {
    expect(keyFindings(life(731), END - 60 * DAY_MS)).toMatchObject([{ reason: 'too-long', isFatal: true, clause: 'IA-09' }])
  })

  test('a raw key that ends more than two years from now is refused', () => {
    const raw = { notBefore: undefined, notAfter: undefined, expiresAt: END }
    expect(reasons(raw, END - 730 * DAY_MS)).toEqual([])
    expect(reasons(raw, END - 731 * DAY_MS)).toEqual(['too-long'])
  })

  test('an early expiresAt does not make a long certificate short', () => {
    expect(reasons({ ...life(1000), expiresAt: END - 900 * DAY_MS }, END - 950 * DAY_MS)).toEqual(['too-long'])
  })

  test('ended: refused from the very moment on', () => {
    expect(reasons(life(365), END - 1)).toEqual(['ends-soon'])
    expect(keyFindings(life(365), END)).toMatchObject([{ reason: 'expired', isFatal: true, message: expect.stringContaining('2027-01-31') }])
  })

  test('not yet valid is refused', () => {
    expect(keyFindings(life(365), END - 366 * DAY_MS)).toMatchObject([{ reason: 'not-yet-valid', isFatal: true }])
  })

  test('due for renewal is said from four weeks before the end on, and late from two on', () => {
    expect(reasons(life(365), END - 28 * DAY_MS - 1)).toEqual([])
    expect(keyFindings(life(365), END - 28 * DAY_MS)).toMatchObject([{ reason: 'ends-soon', isFatal: false, message: expect.stringContaining('2027-01-03') }])
    expect(keyFindings(life(365), END - 14 * DAY_MS)[0]?.message).toContain('already late')
  })

  test('an unknown end is said, not refused', () => {
    expect(keyFindings({ notBefore: undefined, notAfter: undefined }, END)).toMatchObject([{ reason: 'end-unknown', isFatal: false }])
  })

  test('the fatal stands first', () => {
    expect(reasons(life(731), END)).toEqual(['expired', 'too-long'])
    expect(reasons(life(731), END - 10 * DAY_MS)).toEqual(['too-long', 'ends-soon'])
  })
})
