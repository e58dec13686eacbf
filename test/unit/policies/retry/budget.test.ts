import fc from 'fast-check'
import { expect, test } from 'vitest'
import { retryBudget } from '../../../../src/policies/retry/budget.ts'

test('ten a second are always allowed, the eleventh is not', () => {
  let now = 5_000
  const budget = retryBudget(0, () => now)
  expect(Array.from({ length: 11 }, () => budget.take())).toEqual([...Array.from({ length: 10 }, () => true), false])
  now = 6_000
  expect(budget.take()).toBe(true)
})

test('the share counts requests of the last minute only', () => {
  let now = 0
  const budget = retryBudget(0.2, () => now)
  for (let i = 0; i < 100; i++) budget.request()
  expect(Array.from({ length: 30 }, () => budget.take()).filter(Boolean)).toHaveLength(20)
  now = 61_000
  expect(Array.from({ length: 30 }, () => budget.take()).filter(Boolean)).toHaveLength(10)
})

test('retries stay below share × requests + 10 a second under any schedule', () => {
  const steps = fc.array(fc.record({ afterMs: fc.nat(3000), requests: fc.nat(60), retries: fc.nat(60) }), { minLength: 1, maxLength: 80, size: 'max' })
  fc.assert(
    fc.property(fc.double({ min: 0, max: 1, noNaN: true }), steps, (share, schedule) => {
      let now = 1_000_000
      const startedAt = now
      const budget = retryBudget(share, () => now)
      let requests = 0
      let retries = 0
      for (const step of schedule) {
        now += step.afterMs
        for (let i = 0; i < step.requests; i++) budget.request()
        requests += step.requests
        for (let i = 0; i < step.retries; i++) if (budget.take()) retries += 1
        const seconds = Math.floor(now / 1000) - Math.floor(startedAt / 1000) + 1
        expect(retries).toBeLessThanOrEqual(share * requests + 10 * seconds)
      }
    })
  )
})

test('whoever asks for few always gets them', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(5000), { maxLength: 200, size: 'max' }), (gaps) => {
      let now = 0
      const budget = retryBudget(0, () => now)
      const inSecond = new Map<number, number>()
      for (const gap of gaps) {
        now += gap
        const second = Math.floor(now / 1000)
        const before = inSecond.get(second) ?? 0
        expect(budget.take()).toBe(before < 10)
        inSecond.set(second, Math.min(10, before + 1))
      }
    })
  )
})
