import { PassThrough } from 'node:stream'
import { describe, expect, test } from 'vitest'
import type { Send } from '../../../src/exchange/chain.ts'
import type { Event } from '../../../src/exchange/events.ts'
import type { Request, Response } from '../../../src/exchange/message.ts'
import { CallerGone, Problem, type ProblemCode } from '../../../src/exchange/problem.ts'
import { breaker, type BreakerOptions } from '../../../src/policies/breaker.ts'
import { memoryStore } from '../../../src/state/memory.ts'
import type { Store } from '../../../src/state/store.ts'
import { testClock, type TestClock } from '../../support/clock.ts'
import { answerOf, reports, requestTo } from '../../support/policy-call.ts'

const OPTIONS: BreakerOptions = { failures: 3, cooldown: 60_000, maxCooldown: 300_000, openOn: [] }

type Provider = { send: Send; arrivals: number; answer: (response: Response) => void; fail: (error: unknown) => void }

/** A provider that answers when the test says so. */
function provider(): Provider {
  const waiting: { resolve: (response: Response) => void; reject: (error: unknown) => void }[] = []
  const it: Provider = {
    arrivals: 0,
    send(request) {
      it.arrivals += 1
      request.trace.sent = true
      return new Promise((resolve, reject) => waiting.push({ resolve, reject }))
    },
    answer: (response) => waiting.shift()?.resolve(response),
    fail: (error) => waiting.shift()?.reject(error)
  }
  return it
}

function setup(more: { options?: Partial<BreakerOptions>; random?: () => number; clock?: TestClock; store?: Store } = {}) {
  const clock = more.clock ?? testClock()
  const { events, report } = reports()
  const store = more.store ?? memoryStore({ clock })
  const theBreaker = breaker({ ...OPTIONS, ...more.options }, { clock, report, random: more.random ?? (() => 0), upstream: 'acme', store })
  const remote = provider()

  /** One attempt with an outcome decided at once. */
  async function attempt(outcome: number | ProblemCode, request: Request = requestTo('GET', '/')): Promise<unknown> {
    const arrivals = remote.arrivals
    const settled = theBreaker.policy(request, remote.send).catch((error: unknown) => error)
    await settle()
    if (remote.arrivals > arrivals) {
      if (typeof outcome === 'number') remote.answer(answerOf(outcome))
      else remote.fail(new Problem(outcome))
    }
    return settled
  }
  return { clock, events, store, theBreaker, remote, attempt }
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve))
}

function states(events: Event[]): string[] {
  return events.flatMap((event) => (event.kind === 'breaker' ? [event.state] : []))
}

/** A store kept over a restart, seen by the breaker as one that others share. */
function shared(clock: TestClock): Store {
  return { ...memoryStore({ clock }), kind: 'redis' }
}

test('after the agreed number of consecutive failures nothing at all is sent for the cooldown', async () => {
  const { attempt, remote, clock, events } = setup()
  for (const status of [500, 502, 503]) expect(await attempt(status)).toMatchObject({ status })
  expect(states(events)).toEqual(['open'])
  for (let i = 0; i < 59; i++) {
    expect(await attempt(200)).toMatchObject({ code: 'breaker-open', details: { retryAfterMs: 60_000 - i * 1000 } })
    await clock.advance(1000)
  }
  expect(remote.arrivals).toBe(3)
  expect(events.filter((event) => event.kind === 'call-avoided')).toHaveLength(59)
})

test('an answer in between starts the count anew', async () => {
  const { attempt, theBreaker } = setup()
  for (const status of [500, 500, 200, 500, 404, 500, 500]) await attempt(status)
  expect(theBreaker.state()).toEqual({ kind: 'closed' })
})

test.each([200, 304, 400, 401, 403, 404, 408, 409, 429, 480, 501])('%d never counts as a failure', async (status) => {
  const { attempt, theBreaker } = setup({ options: { failures: 1 } })
  await attempt(status)
  expect(theBreaker.state()).toEqual({ kind: 'closed' })
})

test.each(['upstream-unreachable', 'upstream-protocol', 'upstream-timeout'] as const)('%s counts as a failure', async (code) => {
  const { attempt, theBreaker, clock } = setup({ options: { failures: 1 } })
  expect(await attempt(code)).toMatchObject({ code })
  expect(theBreaker.state()).toEqual({ kind: 'open', until: clock.now() + 60_000 })
})

test.each(['volume-exhausted', 'token-unavailable', 'draining', 'internal'] as const)('%s is our own affair and does not count', async (code) => {
  const { attempt, theBreaker } = setup({ options: { failures: 1 } })
  await attempt(code)
  expect(theBreaker.state()).toEqual({ kind: 'closed' })
})

describe('an answer whose body breaks off', () => {
  /** An answer of which only the header has come. */
  async function begun(on: ReturnType<typeof setup>): Promise<PassThrough> {
    const stream = new PassThrough()
    const settled = on.theBreaker.policy(requestTo('GET', '/'), on.remote.send)
    await settle()
    on.remote.answer({ status: 200, fields: [], body: { kind: 'stream', stream, sizeBytes: undefined }, source: 'upstream' })
    await settled
    return stream.on('error', () => {})
  }
  async function breakOff(stream: PassThrough, reason: Error = new Problem('upstream-unreachable')): Promise<void> {
    stream.destroy(reason)
    await settle()
  }

  test('is a failure like any other', async () => {
    const on = setup()
    for (let i = 0; i < 3; i++) await breakOff(await begun(on))
    expect(on.theBreaker.state().kind).toBe('open')
  })

  test('goes on counting where it seemed to begin anew', async () => {
    const on = setup()
    await on.attempt(500)
    const stream = await begun(on)
    await on.attempt(500)
    await breakOff(stream)
    expect(on.theBreaker.state().kind).toBe('open')
  })

  test('does not count together with failures from before another success', async () => {
    const on = setup()
    await on.attempt(500)
    await on.attempt(500)
    const stream = await begun(on)
    await on.attempt(200)
    await breakOff(stream)
    expect(on.theBreaker.state().kind).toBe('closed')
  })

  test('because its reader has left says nothing about the provider', async () => {
    const on = setup()
    for (let i = 0; i < 4; i++) await breakOff(await begun(on), new CallerGone())
    expect(on.theBreaker.state().kind).toBe('closed')
  })
})

test('a caller who leaves, or would not wait as long as agreed, says nothing about the provider', async () => {
  const gone = new AbortController()
  gone.abort(new CallerGone())
  const { theBreaker, remote, attempt } = setup({ options: { failures: 1 } })
  const leaving = theBreaker.policy(requestTo('GET', '/', { signal: gone.signal }), remote.send).catch((error: unknown) => error)
  await settle()
  remote.fail(new CallerGone())
  expect(await leaving).toBeInstanceOf(CallerGone)
  const late = new AbortController()
  late.abort(new Problem('upstream-timeout'))
  const wishes = { waitMs: undefined, respondAsync: false, timeoutMs: 100, idempotencyKey: undefined }
  await attempt('upstream-timeout', requestTo('GET', '/', { signal: late.signal, wishes }))
  expect(theBreaker.state()).toEqual({ kind: 'closed' })
  await attempt('upstream-timeout', requestTo('GET', '/', { signal: late.signal }))
  expect(theBreaker.state()).toMatchObject({ kind: 'open' })
})

test('after the cooldown exactly one probe goes through, and closes it', async () => {
  const { attempt, theBreaker, remote, clock, events } = setup()
  for (let i = 0; i < 3; i++) await attempt(500)
  await clock.advance(60_000)
  expect(theBreaker.state()).toEqual({ kind: 'half-open' })
  const callers = Array.from({ length: 50 }, () => theBreaker.policy(requestTo('GET', '/'), remote.send).catch((error: unknown) => error))
  await settle()
  expect(remote.arrivals).toBe(4)
  remote.answer(answerOf(200))
  const outcomes = await Promise.all(callers)
  expect(outcomes.filter((outcome) => outcome instanceof Problem && outcome.code === 'breaker-open' && (outcome.details.retryAfterMs ?? 0) > 0)).toHaveLength(
    49
  )
  expect(outcomes[0]).toMatchObject({ status: 200 })
  expect(states(events)).toEqual(['open', 'half-open', 'closed'])
  expect(await attempt(200)).toMatchObject({ status: 200 })
})

test('each probe that fails doubles the pause, up to the maximum', async () => {
  const { attempt, theBreaker, clock } = setup()
  for (let i = 0; i < 3; i++) await attempt(500)
  for (const pauseMs of [60_000, 120_000, 240_000, 300_000, 300_000]) {
    expect(theBreaker.state()).toEqual({ kind: 'open', until: clock.now() + pauseMs })
    await clock.advance(pauseMs)
    await attempt('upstream-unreachable')
  }
  await clock.advance(300_000)
  await attempt(200)
  for (let i = 0; i < 3; i++) await attempt(500)
  expect(theBreaker.state()).toEqual({ kind: 'open', until: clock.now() + 60_000 })
})

test('a pause may be a quarter longer, never shorter', async () => {
  const { attempt, theBreaker, clock } = setup({ random: () => 0.999 })
  for (let i = 0; i < 3; i++) await attempt(500)
  expect(theBreaker.state()).toEqual({ kind: 'open', until: clock.now() + 60_000 * (1 + 0.25 * 0.999) })
})

test('late answers to attempts from before the outage neither close it nor open it anew', async () => {
  const { theBreaker, remote, clock, attempt } = setup()
  const early = Array.from({ length: 6 }, () => theBreaker.policy(requestTo('GET', '/'), remote.send).catch((error: unknown) => error))
  await settle()
  for (let i = 0; i < 3; i++) remote.answer(answerOf(500))
  await settle()
  const until = clock.now() + 60_000
  remote.answer(answerOf(200))
  remote.answer(answerOf(500))
  await settle()
  expect(theBreaker.state()).toEqual({ kind: 'open', until })
  await clock.advance(60_000)
  const probe = theBreaker.policy(requestTo('GET', '/'), remote.send)
  await settle()
  // the last of the early ones, while the probe is under way
  remote.answer(answerOf(200))
  await Promise.all(early)
  expect(theBreaker.state()).toEqual({ kind: 'half-open' })
  remote.answer(answerOf(200))
  await probe
  expect(theBreaker.state()).toEqual({ kind: 'closed' })
  expect(await attempt(200)).toMatchObject({ status: 200 })
})

test('a probe whose caller leaves hands its turn to the next request', async () => {
  const { theBreaker, remote, clock, attempt } = setup()
  for (let i = 0; i < 3; i++) await attempt(500)
  await clock.advance(60_000)
  const probe = theBreaker.policy(requestTo('GET', '/'), remote.send).catch((error: unknown) => error)
  await settle()
  remote.fail(new CallerGone())
  await probe
  expect(theBreaker.state()).toEqual({ kind: 'half-open' })
  expect(await attempt(200)).toMatchObject({ status: 200 })
  expect(theBreaker.state()).toEqual({ kind: 'closed' })
})

test('a status agreed to mean "come back later" opens it at once', async () => {
  const { attempt, theBreaker } = setup({ options: { openOn: [503], failures: 5 } })
  await attempt(500)
  expect(theBreaker.state()).toEqual({ kind: 'closed' })
  await attempt(503)
  expect(theBreaker.state()).toMatchObject({ kind: 'open' })
})

test('it stays open over a restart, and remembers how long the pause has grown', async () => {
  const clock = testClock()
  const store = shared(clock)
  const before = setup({ clock, store })
  for (let i = 0; i < 3; i++) await before.attempt(500)
  await clock.advance(60_000)
  await before.attempt(500)
  const after = setup({ clock, store })
  expect(await after.attempt(200)).toMatchObject({ code: 'breaker-open', details: { retryAfterMs: 120_000 } })
  expect(after.remote.arrivals).toBe(0)
  await clock.advance(120_000)
  await after.attempt(500)
  expect(after.theBreaker.state()).toEqual({ kind: 'open', until: clock.now() + 240_000 })
  await clock.advance(240_000)
  await after.attempt(200)
  expect(await setup({ clock, store }).attempt(200)).toMatchObject({ status: 200 })
})

test('a replica that has seen no failure stays away too, and only one of them probes', async () => {
  const clock = testClock()
  const store = shared(clock)
  const [one, two] = [setup({ clock, store }), setup({ clock, store })]
  await two.attempt(200)
  for (let i = 0; i < 3; i++) await one.attempt(500)
  await clock.advance(1000)
  await two.attempt(200)
  expect(await two.attempt(200)).toMatchObject({ code: 'breaker-open' })
  await clock.advance(59_000)
  const arrivals = one.remote.arrivals + two.remote.arrivals
  const probes = [one, two].map((replica) => replica.theBreaker.policy(requestTo('GET', '/'), replica.remote.send).catch((error: unknown) => error))
  await settle()
  expect(one.remote.arrivals + two.remote.arrivals).toBe(arrivals + 1)
  one.remote.answer(answerOf(200))
  two.remote.answer(answerOf(200))
  expect(await Promise.all(probes)).toMatchObject([{ status: 200 }, { code: 'breaker-open' }])
  await clock.advance(1000)
  expect(await two.attempt(200)).toMatchObject({ status: 200 })
})

test('a store that fails leaves the breaker at work', async () => {
  const clock = testClock()
  const broken = (): Promise<never> => Promise.reject(new Error('disk full'))
  const store: Store = { ...memoryStore({ clock }), kind: 'sqlite', get: broken, put: broken, delete: broken, lock: broken }
  const { attempt, events } = setup({ clock, store })
  for (let i = 0; i < 3; i++) await attempt(500)
  expect(await attempt(200)).toMatchObject({ code: 'breaker-open' })
  await clock.advance(60_000)
  expect(await attempt(200)).toMatchObject({ status: 200 })
  expect(events.some((event) => event.kind === 'warning')).toBe(true)
})

test('an operator can hold it open, over restarts, and let it go', async () => {
  const clock = testClock()
  const store = shared(clock)
  const { theBreaker, attempt } = setup({ clock, store })
  theBreaker.set('open')
  await clock.advance(1_000_000)
  expect(theBreaker.state()).toEqual({ kind: 'open' })
  expect(await attempt(200)).toMatchObject({ code: 'breaker-open' })
  expect(await setup({ clock, store }).attempt(200)).toMatchObject({ code: 'breaker-open' })
  theBreaker.set('auto')
  expect(theBreaker.state()).toEqual({ kind: 'half-open' })
  await attempt(200)
  expect(theBreaker.state()).toEqual({ kind: 'closed' })
})

test('an operator can close it at once, and failures open it again', async () => {
  const { theBreaker, attempt } = setup()
  for (let i = 0; i < 3; i++) await attempt(500)
  theBreaker.set('auto')
  expect(await attempt(200)).toMatchObject({ code: 'breaker-open' })
  theBreaker.set('closed')
  expect(await attempt(200)).toMatchObject({ status: 200 })
  for (let i = 0; i < 3; i++) await attempt(500)
  expect(theBreaker.state()).toMatchObject({ kind: 'open' })
})

test('whoever waits to try again hears of it at once', async () => {
  const { theBreaker, attempt } = setup()
  let heard = 0
  const stop = theBreaker.onOpen(() => (heard += 1))
  expect(theBreaker.refusal()).toBeUndefined()
  for (let i = 0; i < 3; i++) await attempt(500)
  expect(heard).toBe(1)
  expect(theBreaker.refusal()).toMatchObject({ code: 'breaker-open' })
  stop()
  theBreaker.set('closed')
  for (let i = 0; i < 3; i++) await attempt(500)
  expect(heard).toBe(1)
})
