import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Window, freeAfter } from '../../../../src/policies/volume/window.ts'
import { fullestWindow } from '../../../support/sliding.ts'

type Rate = { count: number; windowMs: number }

/** A limit nobody else uses. */
function limited({ count, windowMs }: Rate, guardMs: number) {
  const window = new Window({ windowMs }, guardMs)
  return {
    has: (now: number) => window.used(now) < count,
    take: (now: number) => window.record(now),
    freeAt: (now: number, units: number) => freeAfter({ used: window.used(now), units, count, stayMs: window.stayMs }, now, window.leaving())
  }
}

const rates = fc.record({ count: fc.integer({ min: 1, max: 40 }), windowMs: fc.constantFrom(1000, 7000, 60_000) })

test('no window holds more than agreed, wherever it begins, and time that has come is used', () => {
  fc.assert(
    fc.property(rates, fc.array(fc.nat(100), { minLength: 1, maxLength: 300, size: 'max' }), ({ count, windowMs }, gaps) => {
      const quota = limited({ count, windowMs }, 0)
      const taken: number[] = []
      let now = 1_000_000_007
      for (const gap of gaps) {
        now += (gap / 1000) * windowMs
        const hasRoom = quota.has(now)
        expect(quota.freeAt(now, 1) <= now).toBe(hasRoom)
        // never refused because of what left the window more than a sixtieth of it ago
        const late = taken.filter((time) => time > now - windowMs * (1 + 1 / 60)).length
        expect(hasRoom || late >= count).toBe(true)
        if (!hasRoom) continue
        quota.take(now)
        taken.push(now)
      }
      expect(fullestWindow(taken, windowMs)).toBeLessThanOrEqual(count)
    })
  )
})

test('the time it names for so many units is the time at which they can be taken', () => {
  fc.assert(
    fc.property(
      rates,
      fc.array(fc.nat(2000), { minLength: 1, maxLength: 60, size: 'max' }),
      fc.integer({ min: 1, max: 40 }),
      ({ count, windowMs }, gaps, units) => {
        const quota = limited({ count, windowMs }, 50)
        let now = 5_000_000
        for (const gap of gaps) {
          now += gap
          if (quota.has(now)) quota.take(now)
        }
        const at = quota.freeAt(now, units)
        // as a line would: each as soon as it can
        for (let unit = 0; unit < units; unit++) {
          now = Math.max(now, quota.freeAt(now, 1))
          expect(quota.has(now)).toBe(true)
          quota.take(now)
        }
        expect(now).toBeLessThanOrEqual(at + 1e-6)
        expect(units > count || Math.abs(now - at) < 1e-6).toBe(true)
      }
    )
  )
})

test('an allowance for travel keeps calls apart that may arrive at different speed', () => {
  const quota = limited({ count: 1, windowMs: 1000 }, 100)
  quota.take(0)
  expect(quota.freeAt(1, 1)).toBeGreaterThanOrEqual(1100)
})

test('nothing is agreed means nothing is sent', () => {
  const quota = limited({ count: 0, windowMs: 1000 }, 0)
  expect([quota.has(0), quota.freeAt(0, 1)]).toEqual([false, Infinity])
})
