import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Response } from '../../../../src/exchange/message.ts'
import { Problem } from '../../../../src/exchange/problem.ts'
import { breaker } from '../../../../src/policies/breaker.ts'
import { memoryStore } from '../../../../src/state/memory.ts'
import { testClock } from '../../../support/clock.ts'
import { answerOf, reports, requestTo } from '../../../support/policy-call.ts'

const FAILURES = 3
const COOLDOWN = 1000
const MAXIMUM = 4000

type Outcome = 'good' | 'bad' | 'neither'
type Step = { kind: 'calls'; count: number } | { kind: 'pass'; ms: number } | { kind: 'settle'; which: number; outcome: Outcome }
type Attempt = { generation: number; settle: (outcome: Outcome) => void }

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('calls' as const), count: fc.integer({ min: 1, max: 4 }) }),
  fc.record({ kind: fc.constant('pass' as const), ms: fc.constantFrom(1, 500, 999, 1000, 1300, 4000, 6000) }),
  fc.record({ kind: fc.constant('settle' as const), which: fc.nat(8), outcome: fc.constantFrom<Outcome>('good', 'bad', 'bad', 'bad', 'bad', 'neither') })
)

/** The rules on one page: closed counts failures in a row; open refuses until a time; the probe alone decides what is next. */
function rules(now: () => number, chance: number) {
  let state: { kind: 'closed'; failures: number } | { kind: 'open'; until: number; pauseMs: number } | { kind: 'half-open'; pauseMs: number }
  state = { kind: 'closed', failures: 0 }
  let generation = 0
  function enter(next: typeof state): void {
    generation += 1
    state = next
  }
  function open(pauseMs: number): void {
    enter({ kind: 'open', until: now() + pauseMs * (1 + 0.25 * chance), pauseMs })
  }
  return {
    get kind() {
      return state.kind
    },
    /** The generation an attempt would belong to, undefined where none may be made. */
    admit(): number | undefined {
      if (state.kind === 'open' && now() >= state.until) enter({ kind: 'half-open', pauseMs: state.pauseMs })
      else if (state.kind !== 'closed') return undefined
      return generation
    },
    settled(of: number, outcome: Outcome): void {
      if (of !== generation) return
      if (state.kind === 'half-open') {
        if (outcome === 'bad') open(Math.min(state.pauseMs * 2, MAXIMUM))
        else enter(outcome === 'good' ? { kind: 'closed', failures: 0 } : { kind: 'open', until: now(), pauseMs: state.pauseMs })
        return
      }
      if (state.kind !== 'closed' || outcome === 'neither') return
      state.failures = outcome === 'good' ? 0 : state.failures + 1
      if (state.failures >= FAILURES) open(COOLDOWN)
    }
  }
}

test('under any schedule it does what the rules say', async () => {
  const reached = new Set<string>()
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 80, size: 'max' }), fc.double({ min: 0, max: 0.999, noNaN: true }), async (steps, chance) => {
      const clock = testClock()
      const { policy } = breaker(
        { failures: FAILURES, cooldown: COOLDOWN, maxCooldown: MAXIMUM, openOn: [] },
        { clock, report: reports().report, random: () => chance, upstream: 'acme', store: memoryStore({ clock }) }
      )
      const model = rules(clock.now, chance)
      const underWay: Attempt[] = []
      const admitted: boolean[] = []
      const expected: boolean[] = []

      async function call(): Promise<void> {
        const generation = model.admit()
        expected.push(generation !== undefined)
        let arrived = false
        const made = policy(requestTo('GET', '/'), () => {
          arrived = true
          return new Promise<Response>((resolve, reject) => {
            const settle = (outcome: Outcome): void =>
              outcome === 'neither' ? reject(new Problem('volume-exhausted')) : resolve(answerOf(outcome === 'good' ? 200 : 503))
            underWay.push({ generation: generation ?? -1, settle })
          })
        })
        made.catch(() => 'seen by whether it arrived')
        await clock.advance(0)
        admitted.push(arrived)
      }

      for (const each of steps) {
        if (each.kind === 'pass') await clock.advance(each.ms)
        if (each.kind === 'calls') for (let i = 0; i < each.count; i++) await call()
        if (each.kind === 'settle') {
          const [attempt] = underWay.splice(each.which % Math.max(1, underWay.length), 1)
          attempt?.settle(each.outcome)
          await clock.advance(0)
          if (attempt !== undefined) model.settled(attempt.generation, each.outcome)
        }
        reached.add(model.kind)
      }
      expect(admitted).toEqual(expected)
    }),
    { numRuns: 150 }
  )
  expect([...reached].toSorted()).toEqual(['closed', 'half-open', 'open'])
})
