import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ladderMs } from '../../../../src/policies/retry/ladder.ts'

const chance = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
const ladders = fc.array(fc.nat(600_000), { minLength: 1, maxLength: 6, size: 'max' })
const jitters = fc.double({ min: 0, max: 1, noNaN: true })

test('a wait is never shorter than its step, and longer by the jitter at most', () => {
  fc.assert(
    fc.property(ladders, fc.integer({ min: 1, max: 20 }), jitters, chance, (backoff, retry, jitter, random) => {
      const step = backoff[Math.min(retry, backoff.length) - 1] ?? Number.NaN
      const waitMs = ladderMs(backoff, retry, jitter, random)
      expect(waitMs).toBeGreaterThanOrEqual(step)
      expect(waitMs).toBeLessThanOrEqual(step * (1 + jitter))
    })
  )
})

test('the last step repeats', () => {
  expect([1, 2, 3, 4, 9].map((retry) => ladderMs([10, 30, 60], retry, 0, 0.5))).toEqual([10, 30, 60, 60, 60])
})

test('an empty ladder does not wait', () => {
  expect(ladderMs([], 1, 0.2, 0.5)).toBe(0)
})
