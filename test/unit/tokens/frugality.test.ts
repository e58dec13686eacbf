import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { expiresAt, forcedAllowedAt, pausedUntil, pauseMs, recentForced, renewableAt, reuseRatio, warmAt } from '../../../src/tokens/frugality.ts'

const HOUR = 3_600_000
const time = fc.integer({ min: 1.6e12, max: 2e12 })
const options = fc.record({ minUse: fc.double({ min: 0.1, max: 1, noNaN: true }), margin: fc.integer({ min: 0, max: HOUR }) })
const token = fc
  .record({ requestedAt: time, delay: fc.integer({ min: 0, max: 30_000 }), lifetimeMs: fc.integer({ min: 1000, max: 86_400_000 }) })
  .map(({ requestedAt, delay, lifetimeMs }) => ({ value: 't', scheme: 'Bearer' as const, requestedAt, receivedAt: requestedAt + delay, lifetimeMs }))

describe('the time of a token', () => {
  test('ends no later than its life after the request for it was sent', () => {
    fc.assert(fc.property(token, time, (one, now) => expiresAt(one, now) <= one.requestedAt + one.lifetimeMs))
  })

  test('does not end later because the clock was set back', () => {
    fc.assert(
      fc.property(token, fc.integer({ min: 0, max: 1e9 }), (one, back) => {
        const now = one.requestedAt - back
        return expiresAt(one, now) <= now + one.lifetimeMs
      })
    )
  })

  test('is renewable no sooner than the agreed share after the provider can have issued it', () => {
    fc.assert(fc.property(token, options, (one, agreed) => renewableAt(one, agreed) >= one.receivedAt + agreed.minUse * one.lifetimeMs - 1e-3))
  })

  test('is kept warm within the last twentieth of its life, and never before it is renewable', () => {
    fc.assert(
      fc.property(token, options, (one, agreed) => {
        const at = warmAt(one, agreed)
        return at >= renewableAt(one, agreed) && at >= one.requestedAt + 0.95 * one.lifetimeMs - 1e-3
      })
    )
  })

  test('serves a tenth of its life whatever the config says', () => {
    expect(renewableAt({ value: 't', scheme: 'Bearer', requestedAt: 0, receivedAt: 0, lifetimeMs: 1000 }, { minUse: 0, margin: 0 })).toBe(100)
  })

  test('is used by a share between nothing and all of it', () => {
    fc.assert(fc.property(token, time, (one, now) => reuseRatio(one, now) >= 0 && reuseRatio(one, now) <= 1))
  })
})

describe('renewing by force', () => {
  // Follows the rule minute by minute as a provider would see it that says 401 to everything.
  function renewalsIn(hours: number, lifetimeMs: number, minUse: number, stepMs: number): number[] {
    const at: number[] = []
    for (let now = 1e12; now < 1e12 + hours * HOUR; now += stepMs) {
      if (forcedAllowedAt(recentForced(at, now), lifetimeMs, { minUse, margin: 0 }, now) <= now) at.push(now)
    }
    return at
  }

  test('happens at most once a minute, and no more often in any hour than the cap', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 60_000, max: 7_200_000 }),
        fc.double({ min: 0.5, max: 1, noNaN: true }),
        fc.integer({ min: 1000, max: 50_000 }),
        (lifetimeMs, minUse, stepMs) => {
          const at = renewalsIn(2.5, lifetimeMs, minUse, stepMs)
          const cap = Math.ceil(HOUR / (minUse * lifetimeMs)) + 2
          for (const [index, moment] of at.entries()) {
            expect(moment - (at[index - 1] ?? -Infinity)).toBeGreaterThanOrEqual(60_000)
            expect(at.filter((other) => other > moment - HOUR && other <= moment).length).toBeLessThanOrEqual(cap)
          }
        }
      ),
      { numRuns: 30 }
    )
  })

  test('is allowed at once the first time, and does come about again', () => {
    expect(renewalsIn(1, HOUR, 0.7, 10_000)).toHaveLength(4)
    expect(renewalsIn(2, HOUR, 0.7, 10_000).length).toBeGreaterThanOrEqual(7)
  })

  test('is not blocked for ever by a clock that was set back', () => {
    expect(forcedAllowedAt([5e12], HOUR, { minUse: 0.7, margin: 0 }, 1e12)).toBe(1e12 + 60_000)
  })
})

describe('leaving a failing token service alone', () => {
  test('takes 10, 30, then 60 seconds', () => {
    expect([1, 2, 3, 4, 100].map((failures) => pauseMs(failures, undefined, 0))).toEqual([10_000, 30_000, 60_000, 60_000, 60_000])
  })

  test('is never shorter than the ladder or than what was asked for, up to an hour', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 50 }),
        fc.integer({ min: 0, max: 1e13 }),
        fc.double({ min: 0, max: 0.999, noNaN: true }),
        (failures, asked, random) => {
          const pause = pauseMs(failures, asked, random)
          return pause >= 10_000 && pause >= Math.min(asked, HOUR) && pause <= HOUR
        }
      )
    )
  })

  test('is lengthened by a fifth at most, so that replicas do not march in step', () => {
    expect(pauseMs(1, undefined, 0.999)).toBeLessThanOrEqual(12_000)
    expect(pauseMs(1, undefined, 0.5)).toBeGreaterThan(10_000)
  })

  test('ends within the hour whatever the clock did since', () => {
    fc.assert(fc.property(time, time, (recorded, now) => pausedUntil(recorded, now) <= now + HOUR))
  })
})
