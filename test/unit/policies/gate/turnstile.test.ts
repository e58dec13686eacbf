import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Turnstile, gapMs, type Pass, type Verdict } from '../../../../src/policies/gate/turnstile.ts'
import { testClock } from '../../../support/clock.ts'
import { requestTo } from '../../../support/policy-call.ts'

const PAUSE_MS = 10_000

function setup(chance = 0.5) {
  const clock = testClock()
  const turnstile = new Turnstile({ clock, random: () => chance })
  const passes: { at: number; pass: Pass }[] = []
  const startedAt = clock.now()
  async function enter(): Promise<void> {
    const pass = await turnstile.enter(requestTo('GET', '/'))
    passes.push({ at: clock.now() - startedAt, pass })
  }
  return { clock, turnstile, passes, enter }
}

test('while closed nobody gets through, then one, then the rest one after the other, ever faster', async () => {
  const { clock, turnstile, passes, enter } = setup()
  turnstile.close(clock.now() + PAUSE_MS, PAUSE_MS)
  for (let i = 0; i < 30; i++) void enter()
  await clock.advance(PAUSE_MS - 1)
  expect(passes).toEqual([])
  await clock.advance(60_000)
  expect(passes).toHaveLength(1)
  const [first] = passes
  expect(first).toMatchObject({ at: PAUSE_MS, pass: { kind: 'probe' } })
  turnstile.leave(first?.pass ?? { kind: 'free' }, { kind: 'fine' })
  await clock.advance(60_000)
  expect(passes).toHaveLength(30)
  expect(turnstile.isOpen).toBe(true)
  const times = passes.slice(1).map(({ at }) => at)
  const gaps = times.slice(1).map((at, i) => at - (times[i] ?? 0))
  expect(Math.min(...gaps)).toBeGreaterThanOrEqual(5)
  expect(gaps[0]).toBeGreaterThan(gaps.at(-1) ?? Infinity)
})

test('gaps are jittered around a pace that shrinks to a floor', () => {
  expect([gapMs(0, 0), gapMs(0, 0.5), gapMs(0, 0.999)]).toEqual([50, 100, expect.closeTo(149.9)])
  expect(gapMs(1000, 0.5)).toBe(5)
})

test('a follower that is refused closes the gate for those behind it', async () => {
  const { clock, turnstile, passes, enter } = setup()
  turnstile.close(clock.now() + PAUSE_MS, PAUSE_MS)
  for (let i = 0; i < 5; i++) void enter()
  await clock.advance(PAUSE_MS)
  turnstile.leave(passes[0]?.pass ?? { kind: 'free' }, { kind: 'fine' })
  await clock.advance(150)
  expect(passes).toHaveLength(2)
  turnstile.leave(passes[1]?.pass ?? { kind: 'free' }, { kind: 'wait', ms: 5000 })
  await clock.advance(4999)
  expect(passes).toHaveLength(2)
  await clock.advance(1)
  expect(passes).toHaveLength(3)
  expect(passes[2]?.pass.kind).toBe('probe')
})

test('a probe refused without a time closes the gate for as long as before', async () => {
  const { clock, turnstile, passes, enter } = setup()
  turnstile.close(clock.now() + PAUSE_MS, PAUSE_MS)
  for (let i = 0; i < 2; i++) void enter()
  await clock.advance(PAUSE_MS)
  turnstile.leave(passes[0]?.pass ?? { kind: 'free' }, { kind: 'wait-again' })
  await clock.advance(PAUSE_MS - 1)
  expect(passes).toHaveLength(1)
  await clock.advance(1)
  expect(passes).toHaveLength(2)
})

test('a probe that tells nothing hands its turn on, with nobody waiting to whoever comes next', async () => {
  const { clock, turnstile, passes, enter } = setup()
  turnstile.close(clock.now() + PAUSE_MS, PAUSE_MS)
  for (let i = 0; i < 2; i++) void enter()
  await clock.advance(PAUSE_MS)
  turnstile.leave(passes[0]?.pass ?? { kind: 'free' }, { kind: 'none' })
  await clock.advance(0)
  expect(passes[1]?.pass.kind).toBe('probe')
  turnstile.leave(passes[1]?.pass ?? { kind: 'free' }, { kind: 'none' })
  await clock.advance(1000)
  await enter()
  expect(passes[2]?.pass.kind).toBe('probe')
})

test('a caller who leaves the line does not get the turn', async () => {
  const { clock, turnstile, passes, enter } = setup()
  turnstile.close(clock.now() + PAUSE_MS, PAUSE_MS)
  const caller = new AbortController()
  const gone = Promise.resolve(turnstile.enter(requestTo('GET', '/', { signal: caller.signal }))).catch((reason: unknown) => reason)
  void enter()
  caller.abort(new Error('gone'))
  expect(await gone).toMatchObject({ message: 'gone' })
  await clock.advance(PAUSE_MS)
  expect(passes).toHaveLength(1)
  expect(turnstile.waiting).toBe(0)
})

type Step = { kind: 'enter' } | { kind: 'pass'; ms: number } | { kind: 'leave'; which: number; verdict: Verdict }

const verdict: fc.Arbitrary<Verdict> = fc.oneof(
  fc.constant<Verdict>({ kind: 'fine' }),
  fc.constant<Verdict>({ kind: 'none' }),
  fc.constant<Verdict>({ kind: 'wait-again' }),
  fc.integer({ min: 1, max: 20_000 }).map((ms): Verdict => ({ kind: 'wait', ms }))
)
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.constant<Step>({ kind: 'enter' }),
  fc.integer({ min: 0, max: 8000 }).map((ms): Step => ({ kind: 'pass', ms })),
  fc.record({ kind: fc.constant('leave' as const), which: fc.nat(10), verdict })
)

test('under any schedule nobody gets through before the time the provider gave, there is one probe at a time, and nobody is forgotten', async () => {
  let closedSeen = 0
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 10, maxLength: 60, size: 'max' }), fc.double({ min: 0, max: 0.999, noNaN: true }), async (steps, chance) => {
      const { clock, turnstile, passes, enter } = setup(chance)
      const startedAt = clock.now()
      const underWay: Pass[] = []
      const violations: string[] = []
      let notBefore = 0
      let entered = 0
      let probe: Pass | undefined

      function look(): void {
        for (const { at, pass } of passes.splice(0)) {
          entered -= 1
          underWay.push(pass)
          if (at + startedAt < notBefore) violations.push(`${pass.kind} at ${at}`)
          if (pass.kind !== 'probe') continue
          if (probe !== undefined && underWay.includes(probe)) violations.push('two probes')
          probe = pass
        }
      }

      for (const each of steps) {
        if (each.kind === 'pass') await clock.advance(each.ms)
        if (each.kind === 'enter') {
          entered += 1
          void enter()
          await clock.advance(0)
        }
        look()
        if (each.kind !== 'leave' || underWay.length === 0) continue
        const [pass = { kind: 'free' as const }] = underWay.splice(each.which % underWay.length, 1)
        if (each.verdict.kind === 'wait') {
          notBefore = Math.max(turnstile.until, clock.now() + each.verdict.ms)
          // whoever probes now does so for nothing: the provider has spoken since
          probe = undefined
          closedSeen += 1
        }
        turnstile.leave(pass, each.verdict)
      }
      // let everybody through in the end
      for (let round = 0; round < 200 && (entered > 0 || underWay.length > 0); round++) {
        await clock.advance(20_000)
        look()
        for (const pass of underWay.splice(0)) turnstile.leave(pass, { kind: 'fine' })
      }
      await clock.advance(100_000)
      expect({ violations, entered, pending: clock.pending }).toEqual({ violations: [], entered: 0, pending: 0 })
    }),
    { numRuns: 100 }
  )
  expect(closedSeen).toBeGreaterThan(50)
})
