import { expect, test } from 'vitest'
import type { Request, Response } from '../../../src/exchange/message.ts'
import { CallerGone, Problem } from '../../../src/exchange/problem.ts'
import { pathOf } from '../../../src/exchange/message.ts'
import { gate, type WaitDefaultOptions } from '../../../src/policies/gate.ts'
import { memoryStore } from '../../../src/state/memory.ts'
import type { Store } from '../../../src/state/store.ts'
import { testClock, type TestClock } from '../../support/clock.ts'
import { answerOf, reports, requestTo } from '../../support/policy-call.ts'

type More = { options?: WaitDefaultOptions; clock?: TestClock; store?: Store; keyOf?: (request: Request) => string }

function setup(more: More = {}) {
  const clock = more.clock ?? testClock()
  const { events, report } = reports()
  const store = more.store ?? memoryStore({ clock })
  const policy = gate(more.options ?? {}, { clock, report, random: () => 0.5, upstream: 'acme', store, keyOf: more.keyOf ?? (() => '') })
  const arrivals: number[] = []
  const startedAt = clock.now()
  /** Sends one request to a provider that answers with what it is given. */
  function send(response: Response | Error, request: Request = requestTo('GET', '/')): Promise<Response | Problem | Error> {
    return policy(request, async () => {
      arrivals.push(clock.now() - startedAt)
      if (response instanceof Error) throw response
      return response
    }).catch((error: Error) => error)
  }
  /** A request that can wait for so many milliseconds. */
  function patient(ms: number, more: Partial<Request> = {}): Request {
    return requestTo('GET', '/', { deadlineAt: clock.now() + ms, ...more })
  }
  return { clock, events, store, policy, send, patient, arrivals }
}

const WAIT_10 = answerOf(429, '', ['Retry-After', '10'])

test('Retry-After stops everybody: who can wait waits, who cannot is told how long', async () => {
  const { clock, send, patient, arrivals, events } = setup()
  expect(await send(WAIT_10)).toMatchObject({ status: 429, retryAt: clock.now() + 10_000 })
  const waiting = send(answerOf(200), patient(60_000))
  expect(await send(answerOf(200), patient(10_000))).toMatchObject({ code: 'upstream-wait', details: { retryAfterMs: 10_000 } })
  await clock.advance(4000)
  expect(await send(answerOf(200), patient(5000))).toMatchObject({ code: 'upstream-wait', details: { retryAfterMs: 6000 } })
  await clock.advance(5999)
  expect(arrivals).toEqual([0])
  await clock.advance(1)
  expect(await waiting).toMatchObject({ status: 200 })
  expect(arrivals).toEqual([0, 10_000])
  expect(events.filter((event) => event.kind === 'call-avoided')).toHaveLength(2)
  expect(events.filter((event) => event.kind === 'gate')).toMatchObject([{ until: expect.any(Number) }, { until: 0 }])
})

test('nobody waits at a closed gate where the cache has an answer to give instead', async () => {
  const { send, patient, arrivals } = setup()
  await send(WAIT_10)
  const asked: unknown[] = []
  const standIn: Request['standIn'] = (failure) => asked.push(failure) > 0
  expect(await send(answerOf(200), patient(60_000, { standIn }))).toMatchObject({ code: 'upstream-wait' })
  expect(asked).toMatchObject([{ code: 'upstream-wait' }])
  expect(arrivals).toEqual([0])
})

test('one goes first, the rest follow jittered and paced after it has succeeded', async () => {
  const { clock, policy, send, patient, arrivals } = setup()
  await send(answerOf(503, '', ['Retry-After', '10']))
  let answerFirst: ((response: Response) => void) | undefined
  const first = policy(patient(60_000), () => {
    arrivals.push(-1)
    return new Promise((resolve) => (answerFirst = resolve))
  })
  const herd = Array.from({ length: 20 }, () => send(answerOf(200), patient(60_000)))
  await clock.advance(15_000)
  expect(arrivals).toEqual([0, -1])
  answerFirst?.(answerOf(200))
  await first
  await clock.advance(120)
  expect(arrivals).toEqual([0, -1, 15_100])
  await clock.advance(10_000)
  expect((await Promise.all(herd)).every((answer) => 'status' in answer && answer.status === 200)).toBe(true)
  const gaps = arrivals.slice(3).map((at, i) => at - (arrivals[i + 2] ?? 0))
  expect(Math.min(...gaps)).toBeGreaterThanOrEqual(5)
})

test('a second 429 closes it again, and those it no longer fits are told so', async () => {
  const { clock, send, patient } = setup()
  await send(WAIT_10)
  const [first, second, third] = [send(WAIT_10, patient(60_000)), send(answerOf(200), patient(15_000)), send(answerOf(200), patient(60_000))]
  await clock.advance(10_000)
  expect(await first).toMatchObject({ status: 429 })
  expect(await second).toMatchObject({ code: 'upstream-wait', details: { retryAfterMs: 10_000 } })
  await clock.advance(10_000)
  expect(await third).toMatchObject({ status: 200 })
})

test('without Retry-After the agreement’s default for the status applies, and none where there is none', async () => {
  const { clock, send } = setup({ options: { 503: 180_000 } })
  expect(await send(answerOf(429))).not.toHaveProperty('retryAt')
  expect(await send(answerOf(503))).toMatchObject({ status: 503, retryAt: clock.now() + 180_000 })
  expect(await send(answerOf(200), requestTo('GET', '/', { deadlineAt: clock.now() + 150_000 }))).toMatchObject({ code: 'upstream-wait' })
})

test.each([['0'], ['Mon, 01 Jun 2020 00:00:00 GMT']])('Retry-After: %s closes nothing', async (value) => {
  const { send } = setup({ options: { 429: 60_000 } })
  await send(answerOf(429, '', ['Retry-After', value]))
  expect(await send(answerOf(200))).toMatchObject({ status: 200 })
})

test('an absurd Retry-After closes the gate for a day, then one asks again', async () => {
  const { clock, send } = setup()
  expect(await send(answerOf(503, '', ['Retry-After', '99999999999']))).toMatchObject({ retryAt: clock.now() + 86_400_000 })
})

test('Retry-After on other statuses is the retry’s business only', async () => {
  const { send } = setup()
  for (const status of [202, 301, 413, 500]) await send(answerOf(status, '', ['Retry-After', '60']))
  expect(await send(answerOf(200))).toMatchObject({ status: 200 })
})

test('each volume key has a gate of its own', async () => {
  const { send } = setup({ keyOf: (request) => pathOf(request.target).split('/')[1] ?? '' })
  await send(WAIT_10, requestTo('GET', '/one/a'))
  expect(await send(answerOf(200), requestTo('GET', '/one/b', { deadlineAt: 0 }))).toMatchObject({ code: 'upstream-wait' })
  expect(await send(answerOf(200), requestTo('GET', '/two/b', { deadlineAt: Infinity }))).toMatchObject({ status: 200 })
})

test('a caller who runs out of time at the gate gets upstream-wait, one who leaves is gone', async () => {
  const { clock, policy, send, patient } = setup()
  await send(WAIT_10)
  void policy(patient(60_000), () => new Promise(() => {}))
  await clock.advance(10_000)
  const controllers = [new AbortController(), new AbortController()] as const
  const [late, gone] = controllers.map(({ signal }) => send(answerOf(200), patient(60_000, { signal })))
  controllers[0].abort(new Problem('upstream-timeout'))
  controllers[1].abort(new CallerGone())
  expect(await late).toMatchObject({ code: 'upstream-wait', details: { retryAfterMs: 1000 } })
  expect(await gone).toBeInstanceOf(CallerGone)
})

test('a probe that fails on the way hands its turn on', async () => {
  const { clock, send, patient } = setup()
  await send(WAIT_10)
  const [first, second] = [send(new Problem('upstream-unreachable'), patient(60_000)), send(answerOf(200), patient(60_000))]
  await clock.advance(10_000)
  expect(await first).toMatchObject({ code: 'upstream-unreachable' })
  expect(await second).toMatchObject({ status: 200 })
})

test('waiting is told apart from the provider being slow', async () => {
  const { clock, send, patient } = setup()
  await send(WAIT_10)
  const request = patient(60_000)
  const waiting = send(answerOf(200), request)
  await clock.advance(10_000)
  await waiting
  expect(request.trace.waitMs).toBe(10_000)
})

test('callers that wait are bounded in number', async () => {
  const { clock, send, patient } = setup()
  await send(WAIT_10)
  const callers = Array.from({ length: 1200 }, () => send(answerOf(200), patient(600_000)))
  await clock.advance(0)
  await clock.advance(60_000)
  const outcomes = await Promise.all(callers)
  expect(outcomes.filter((outcome) => outcome instanceof Problem && outcome.code === 'upstream-wait')).toHaveLength(200)
})

test('a quota that is used up closes the gate before the provider has to', async () => {
  const { clock, send, patient } = setup()
  await send(answerOf(200, '', ['RateLimit', '"default";r=0;t=5']))
  expect(await send(answerOf(200), patient(4000))).toMatchObject({ code: 'upstream-wait', details: { retryAfterMs: 5000 } })
  const waiting = send(answerOf(200), patient(60_000))
  await clock.advance(5000)
  expect(await waiting).toMatchObject({ status: 200 })
})

test('of a quota that is announced no more is used than is left', async () => {
  const { clock, send, patient, arrivals } = setup()
  await send(answerOf(200, '', ['X-RateLimit-Remaining', '3', 'X-RateLimit-Reset', '30']))
  const outcomes = [0, 1, 2, 3, 4].map(() => send(answerOf(200), patient(10_000)))
  expect((await Promise.all(outcomes)).map((outcome) => ('status' in outcome ? outcome.status : outcome.name))).toHaveLength(5)
  expect(arrivals).toHaveLength(4)
  await clock.advance(30_000)
  expect(await send(answerOf(200), patient(10_000))).toMatchObject({ status: 200 })
})

function shared(clock: TestClock): Store {
  return { ...memoryStore({ clock }), kind: 'redis' }
}

test('a closed gate stays closed over a restart', async () => {
  const clock = testClock()
  const store = shared(clock)
  await setup({ clock, store }).send(WAIT_10)
  await clock.advance(4000)
  const after = setup({ clock, store })
  expect(await after.send(answerOf(200), after.patient(5000))).toMatchObject({ code: 'upstream-wait', details: { retryAfterMs: 6000 } })
  expect(after.arrivals).toEqual([])
})

test('a replica hears of it within a second, and only one of them goes first', async () => {
  const clock = testClock()
  const store = shared(clock)
  const [one, two] = [setup({ clock, store }), setup({ clock, store })]
  await two.send(answerOf(200))
  await one.send(WAIT_10)
  await clock.advance(1000)
  await two.send(answerOf(200))
  expect(await two.send(answerOf(200), two.patient(1000))).toMatchObject({ code: 'upstream-wait' })
  let answerFirst: ((response: Response) => void) | undefined
  let arrivals = 0
  const probes = [one, two].map(({ policy, patient }) =>
    policy(patient(60_000), () => {
      arrivals += 1
      return new Promise((resolve) => (answerFirst ??= resolve))
    })
  )
  await clock.advance(12_000)
  expect(arrivals).toBe(1)
  answerFirst?.(answerOf(200))
  await clock.advance(2000)
  expect(arrivals).toBe(2)
  expect(await Promise.race(probes)).toMatchObject({ status: 200 })
})

test('a store that fails leaves the gate at work', async () => {
  const clock = testClock()
  const broken = (): Promise<never> => Promise.reject(new Error('disk full'))
  const store: Store = { ...memoryStore({ clock }), kind: 'sqlite', get: broken, put: broken, delete: broken, lock: broken }
  const { send, patient, events } = setup({ clock, store })
  await send(WAIT_10)
  expect(await send(answerOf(200), patient(5000))).toMatchObject({ code: 'upstream-wait' })
  const waiting = send(answerOf(200), patient(60_000))
  await clock.advance(10_000)
  expect(await waiting).toMatchObject({ status: 200 })
  expect(events.some((event) => event.kind === 'warning')).toBe(true)
})

test('keys are bounded, and a gate that is closed is not forgotten for one that is open', async () => {
  const { send } = setup({ keyOf: (request) => request.target })
  await send(WAIT_10, requestTo('GET', '/closed'))
  const quota = answerOf(200, '', ['RateLimit', '"default";r=50;t=30'])
  for (let key = 0; key < 10_100; key++) await send(quota, requestTo('GET', `/open/${key}`))
  expect(await send(answerOf(200), requestTo('GET', '/closed', { deadlineAt: 1 }))).toMatchObject({ code: 'upstream-wait' })
})
