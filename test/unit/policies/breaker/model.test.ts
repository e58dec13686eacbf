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

type Step = { kind: 'call'; count: number } | { kind: 'pass'; ms: number } | { kind: 'settle'; which: number; outcome: 'good' | 'bad' | 'neither' }

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ kind: fc.constant('call' as const), count: fc.integer({ min: 1, max: 4 }) }),
  fc.record({ kind: fc.constant('pass' as const), ms: fc.constantFrom(1, 400, 999, 1000, 1300, 4000, 6000) }),
  fc.record({
    kind: fc.constant('settle' as const),
    which: fc.nat(8),
    outcome: fc.constantFrom('good' as const, 'bad' as const, 'bad' as const, 'neither' as const)
  })
)

type Attempt = { generation: number; settle: (outcome: 'good' | 'bad' | 'neither') => void; isProbe: boolean }

test('under any schedule it does what a page of plain rules says', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), fc.double({ min: 0, max: 0.999, noNaN: true }), async (steps, chance) => {
      const clock = testClock()
      const { policy } = breaker(
        { failures: FAILURES, cooldown: COOLDOWN, maxCooldown: MAXIMUM, openOn: [] },
        { clock, report: reports().report, random: () => chance, upstream: 'acme', store: memoryStore({ clock }) }
      )

      // the rules: closed counts failures in a row; open refuses until a time; the probe alone decides what is next
      let model: { kind: 'closed'; failures: number } | { kind: 'open'; until: number; pause: number } | { kind: 'half-open'; pause: number } = {
        kind: 'closed',
        failures: 0
      }
      let generation = 0
      const under: Attempt[] = []

      function open(pause: number): void {
        generation += 1
        model = { kind: 'open', until: clock.now() + pause * (1 + 0.25 * chance), pause }
      }

      for (const { kind, ...rest } of steps.map((each) => ({ ...each }))) {
        if (kind === 'pass' && 'ms' in rest) await clock.advance(rest.ms)
        if (kind === 'call' && 'count' in rest) {
          for (let i = 0; i < rest.count; i++) {
            const mayProbe = model.kind === 'open' && clock.now() >= model.until
            if (mayProbe && model.kind === 'open') {
              generation += 1
              model = { kind: 'half-open', pause: model.pause }
            }
            const expected = model.kind === 'closed' || mayProbe
            let arrived: { resolve: (response: Response) => void; reject: (error: unknown) => void } | undefined
            const call = policy(requestTo('GET', '/'), () => new Promise((resolve, reject) => (arrived = { resolve, reject })))
            call.catch(() => 'looked at through what arrived')
            await Promise.resolve()
            expect(arrived !== undefined).toBe(expected)
            const { resolve, reject } = arrived ?? {}
            if (resolve === undefined || reject === undefined) continue
            under.push({
              generation,
              isProbe: mayProbe,
              settle(outcome) {
                if (outcome === 'good') resolve(answerOf(200))
                else if (outcome === 'bad') resolve(answerOf(503))
                else reject(new Problem('volume-exhausted'))
              }
            })
          }
        }
        if (kind === 'settle' && 'which' in rest && under.length > 0) {
          const [attempt] = under.splice(rest.which % under.length, 1)
          if (attempt === undefined) continue
          attempt.settle(rest.outcome)
          await clock.advance(0)
          if (attempt.generation !== generation) continue
          if (model.kind === 'half-open' && attempt.isProbe) {
            if (rest.outcome === 'bad') open(Math.min(model.pause * 2, MAXIMUM))
            else if (rest.outcome === 'good') {
              generation += 1
              model = { kind: 'closed', failures: 0 }
            } else {
              generation += 1
              model = { kind: 'open', until: clock.now(), pause: model.pause }
            }
          } else if (model.kind === 'closed') {
            if (rest.outcome === 'good') model = { kind: 'closed', failures: 0 }
            if (rest.outcome === 'bad') model = { kind: 'closed', failures: model.failures + 1 }
            if (model.kind === 'closed' && model.failures >= FAILURES) open(COOLDOWN)
          }
        }
      }
    }),
    { numRuns: 150 }
  )
})
