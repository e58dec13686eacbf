import { PassThrough } from 'node:stream'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { chain } from '../../../src/exchange/chain.ts'
import type { Response } from '../../../src/exchange/message.ts'
import type { Problem } from '../../../src/exchange/problem.ts'
import { breaker } from '../../../src/policies/breaker.ts'
import { deadline } from '../../../src/policies/deadline.ts'
import { gate } from '../../../src/policies/gate.ts'
import { volume } from '../../../src/policies/volume.ts'
import { memoryStore } from '../../../src/state/memory.ts'
import { testClock } from '../../support/clock.ts'
import { answerOf, reports, requestTo } from '../../support/policy-call.ts'

/** Deadline, gate, breaker and volume as the pipeline stacks them: whoever waits in one may be overtaken by what happens in another. */
function setup(concurrency = 1) {
  const clock = testClock()
  const tools = { clock, report: reports().report, random: () => 0.5, upstream: 'acme', store: memoryStore({ clock }) }
  const { policy, state } = breaker({ failures: 2, cooldown: 60_000, maxCooldown: 300_000, openOn: [] }, tools)
  const answers: ((response: Response) => void)[] = []
  const arrivals: number[] = []
  const arrivedWhileOpen: number[] = []
  const startedAt = clock.now()
  const send = chain(
    [
      deadline({ total: 600_000 }, tools),
      gate({}, { ...tools, keyOf: () => '' }),
      policy,
      volume({ limits: [], concurrency, onExceed: 'wait', queue: 100 }, tools)
    ],
    () => {
      arrivals.push(clock.now() - startedAt)
      return new Promise((resolve) => answers.push(resolve))
    }
  )
  const call = (timeoutMs: number): Promise<Response | Problem> =>
    send(requestTo('GET', '/', { wishes: { waitMs: undefined, respondAsync: false, timeoutMs, idempotencyKey: undefined } })).catch((error: Problem) => error)
  async function answer(response: Response): Promise<void> {
    await clock.advance(0)
    answers.shift()?.(response)
    await clock.advance(0)
  }
  return { clock, startedAt, call, answer, answers, arrivals, arrivedWhileOpen, state }
}

test('whoever waits for a connection when the provider says wait, waits for that too', async () => {
  const { clock, call, answer, arrivals } = setup()
  const callers = [call(600_000), call(600_000), call(600_000), call(20_000)]
  await answer(answerOf(429, '', ['Retry-After', '30']))
  expect(arrivals).toHaveLength(1)
  expect(await callers[3]).toMatchObject({ code: 'upstream-wait', details: { retryAfterMs: 30_000 } })
  await clock.advance(29_999)
  expect(arrivals).toHaveLength(1)
  await clock.advance(1)
  await answer(answerOf(200))
  await clock.advance(1000)
  await answer(answerOf(200))
  expect(await Promise.all(callers.slice(0, 3))).toMatchObject([{ status: 429 }, { status: 200 }, { status: 200 }])
  expect(arrivals).toHaveLength(3)
})

test('whoever waits for a connection when the breaker opens is told so, and nothing is sent', async () => {
  const { call, answer, arrivals, state } = setup()
  const callers = [call(600_000), call(600_000), call(600_000), call(600_000)]
  await answer(answerOf(500))
  await answer(answerOf(500))
  expect(await Promise.all(callers)).toMatchObject([{ status: 500 }, { status: 500 }, { code: 'breaker-open' }, { code: 'breaker-open' }])
  expect(arrivals).toHaveLength(2)
  expect(state()).toMatchObject({ kind: 'open' })
})

test('a probe that has to wait for a connection is still the probe', async () => {
  const { clock, call, answer, arrivals, state } = setup()
  const first = [call(600_000), call(600_000)]
  const stream = new PassThrough()
  await answer(answerOf(500))
  await answer({ ...answerOf(500), body: { kind: 'stream', stream, sizeBytes: undefined } })
  await Promise.all(first)
  await clock.advance(70_000)
  const probe = call(600_000)
  await clock.advance(1000)
  expect(arrivals).toHaveLength(2)
  stream.destroy()
  await answer(answerOf(200))
  expect(await probe).toMatchObject({ status: 200 })
  expect(arrivals).toHaveLength(3)
  expect(state()).toEqual({ kind: 'closed' })
})

test('under any schedule nothing arrives while the provider wants a pause or the breaker is open', async () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('calls' as const), count: fc.integer({ min: 1, max: 4 }), patienceMs: fc.constantFrom(1000, 30_000, 600_000) }),
    fc.record({ kind: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 40_000 }) }),
    fc.record({ kind: fc.constant('answer' as const), status: fc.constantFrom(200, 200, 500, 429, 503), waitS: fc.integer({ min: 0, max: 60 }) })
  )
  let pauses = 0
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 80, size: 'max' }), fc.integer({ min: 1, max: 3 }), async (steps, concurrency) => {
      const { clock, startedAt, call, answer, answers, arrivals, arrivedWhileOpen } = setup(concurrency)
      const quiet: { from: number; until: number; arrivedBefore: number }[] = []
      const outcomes: Promise<unknown>[] = []
      let done = 0
      for (const each of steps) {
        if (each.kind === 'pass') await clock.advance(each.ms)
        if (each.kind === 'calls') for (let i = 0; i < each.count; i++) outcomes.push(call(each.patienceMs).finally(() => (done += 1)))
        // whoever may go has gone
        await clock.advance(0)
        if (each.kind === 'answer' && answers.length > 0) {
          const now = clock.now() - startedAt
          const asksToWait = each.status === 429 || each.status === 503
          if (asksToWait) quiet.push({ from: now, until: now + each.waitS * 1000, arrivedBefore: arrivals.length })
          await answer(answerOf(each.status, '', asksToWait ? ['Retry-After', String(each.waitS)] : []))
        }
      }
      for (let round = 0; round < 300 && outcomes.length > done; round++) {
        await answer(answerOf(200))
        await clock.advance(20_000)
      }
      pauses += quiet.length
      const early = quiet.flatMap(({ until, arrivedBefore }) => arrivals.slice(arrivedBefore).filter((at) => at < until))
      expect({ early, arrivedWhileOpen }).toEqual({ early: [], arrivedWhileOpen: [] })
      expect(done).toBe(outcomes.length)
    }),
    { numRuns: 60 }
  )
  expect(pauses).toBeGreaterThan(40)
})
