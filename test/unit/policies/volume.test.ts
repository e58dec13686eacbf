import { PassThrough } from 'node:stream'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Request, Response } from '../../../src/exchange/message.ts'
import { CallerGone, Problem } from '../../../src/exchange/problem.ts'
import { volume, volumeKey, type VolumeOptions } from '../../../src/policies/volume.ts'
import { memoryStore } from '../../../src/state/memory.ts'
import type { Store } from '../../../src/state/store.ts'
import { testClock, type TestClock } from '../../support/clock.ts'
import { answerOf, reports, requestTo } from '../../support/policy-call.ts'
import { fullestWindow } from '../../support/sliding.ts'

const OPTIONS: VolumeOptions = { limits: [], concurrency: 128, onExceed: 'wait', queue: 1000 }

function limit(count: number, windowMs: number) {
  return { count, windowMs, label: `${count}/${windowMs}ms` }
}

function setup(options: Partial<VolumeOptions>, more: { clock?: TestClock; store?: Store } = {}) {
  const clock = more.clock ?? testClock()
  const { events, report } = reports()
  const policy = volume({ ...OPTIONS, ...options }, { clock, report, random: () => 0, upstream: 'acme', store: more.store ?? memoryStore({ clock }) })
  const sentAt: number[] = []
  const startedAt = clock.now()
  function send(request: Request = requestTo('GET', '/'), answer: () => Promise<Response> = async () => answerOf(200)): Promise<Response | Error> {
    return policy(request, () => {
      sentAt.push(clock.now() - startedAt)
      return answer()
    }).catch((error: Error) => error)
  }
  return { clock, events, policy, send, sentAt, patient: (ms: number) => requestTo('GET', '/', { deadlineAt: clock.now() + ms }) }
}

function statuses(outcomes: (Response | Error)[]): (number | string)[] {
  return outcomes.map((outcome) => (outcome instanceof Problem ? outcome.code : outcome instanceof Error ? outcome.name : outcome.status))
}

test('what is agreed goes through at once, the rest waits for its time', async () => {
  const { clock, send, sentAt, events } = setup({ limits: [limit(10, 60_000)] })
  const requests = Array.from({ length: 15 }, () => requestTo('GET', '/'))
  const callers = requests.map((request) => send(request))
  await clock.advance(59_000)
  expect(sentAt).toHaveLength(10)
  await clock.advance(3000)
  expect(statuses(await Promise.all(callers))).toEqual(Array.from({ length: 15 }, () => 200))
  expect(fullestWindow(sentAt, 60_000)).toBe(10)
  expect(requests.at(-1)?.trace.waitMs).toBeGreaterThan(59_000)
  expect(events.filter((event) => event.kind === 'queue').map((event) => event.length)).toEqual([1, 2, 3, 4, 5, 4, 3, 2, 1, 0])
})

test('a call that may have arrived as late as its answer says counts from then on', async () => {
  const { clock, send, sentAt } = setup({ limits: [limit(2, 10_000)] })
  const slow = (ms: number) => async () => (await clock.sleep(ms), answerOf(200))
  const callers = [send(undefined, slow(700)), send(undefined, slow(50)), send(), send()]
  await clock.advance(20_000)
  await Promise.all(callers)
  // the first arrived when it was answered at the latest; the second soon enough for the allowance
  expect(sentAt[2]).toBeLessThan(10_400)
  expect(sentAt[3]).toBeGreaterThanOrEqual(10_700)
  expect(sentAt[3]).toBeLessThan(11_200)
})

test('first come, first served', async () => {
  const { clock, policy } = setup({ limits: [limit(2, 1000)] })
  const order: number[] = []
  for (let i = 0; i < 8; i++) void policy(requestTo('GET', '/'), async () => (order.push(i), answerOf(200)))
  await clock.advance(10_000)
  expect(order).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
})

test('a wait that does not fit is refused at once, with the time at which there is room', async () => {
  const { clock, send, patient, sentAt, events } = setup({ limits: [limit(10, 60_000)] })
  for (let i = 0; i < 10; i++) await send()
  await clock.advance(20_000)
  const refused = await send(patient(30_000))
  expect(refused).toMatchObject({ code: 'volume-exhausted', details: { retryAfterMs: expect.any(Number) } })
  const { retryAfterMs = 0 } = refused instanceof Problem ? refused.details : {}
  expect(retryAfterMs).toBeGreaterThanOrEqual(40_000)
  expect(retryAfterMs).toBeLessThan(42_000)
  await clock.advance(retryAfterMs)
  expect(await send(patient(1))).toMatchObject({ status: 200 })
  expect(sentAt).toHaveLength(11)
  expect(events).toContainEqual({ kind: 'call-avoided', upstream: 'acme', reason: 'volume' })
})

test('whether it fits counts those who wait before', async () => {
  const { send, patient } = setup({ limits: [limit(1, 1000)] })
  await send()
  const first = send(patient(1500))
  expect(await send(patient(1500))).toMatchObject({ code: 'volume-exhausted' })
  expect(await Promise.race([first, Promise.resolve('waiting')])).toBe('waiting')
})

test('onExceed: reject never lets anybody wait for a limit, only for a connection', async () => {
  const { clock, send } = setup({ limits: [limit(2, 60_000)], onExceed: 'reject', concurrency: 1 })
  const answers: ((response: Response) => void)[] = []
  const slow = (): Promise<Response> => new Promise((resolve) => answers.push(resolve))
  const callers = [send(undefined, slow), send(undefined, slow), send(undefined, slow)]
  await clock.advance(0)
  answers.shift()?.(answerOf(200))
  await clock.advance(0)
  answers.shift()?.(answerOf(200))
  expect(statuses(await Promise.all(callers))).toEqual([200, 200, 'volume-exhausted'])
})

test('every limit holds, and a unit is taken of all or of none', async () => {
  const { clock, send, sentAt } = setup({ limits: [limit(5, 1000), limit(8, 10_000)] })
  const callers = Array.from({ length: 16 }, () => send())
  await clock.advance(30_000)
  await Promise.all(callers)
  expect(fullestWindow(sentAt, 1000)).toBe(5)
  expect(fullestWindow(sentAt, 10_000)).toBe(8)
  expect(sentAt).toHaveLength(16)
})

test('each key has its own volume, and one that waits does not hold up another', async () => {
  const { clock, send } = setup({ limits: [limit(1, 60_000)], key: 'path[1]' })
  const to = (target: string): Promise<Response | Error> => send(requestTo('GET', target))
  await to('/v1/one/a')
  const waiting = to('/v1/one/b')
  expect(await to('/v1/two/a')).toMatchObject({ status: 200 })
  expect(await Promise.race([waiting, Promise.resolve('waiting')])).toBe('waiting')
  await clock.advance(70_000)
  expect(await waiting).toMatchObject({ status: 200 })
})

test('attempts under way are bounded; a streamed answer is under way until its body has ended', async () => {
  const { clock, send, sentAt } = setup({ concurrency: 2 })
  const bodies = [new PassThrough(), new PassThrough()]
  const streaming = (stream: PassThrough) => async (): Promise<Response> => ({ ...answerOf(200), body: { kind: 'stream', stream, sizeBytes: undefined } })
  for (const body of bodies) await send(undefined, streaming(body))
  const callers = [send(), send()]
  await clock.advance(100_000)
  expect(sentAt).toHaveLength(2)
  bodies[0]?.resume().end('done')
  await clock.advance(0)
  expect(statuses(await Promise.all(callers))).toEqual([200, 200])
  bodies[1]?.destroy()
})

test('an attempt that fails gives its place back', async () => {
  const { send } = setup({ concurrency: 1 })
  for (let i = 0; i < 3; i++)
    expect(await send(undefined, () => Promise.reject(new Problem('upstream-unreachable')))).toMatchObject({ code: 'upstream-unreachable' })
  expect(await send()).toMatchObject({ status: 200 })
})

test('among keys the places go round', async () => {
  const { clock, policy } = setup({ concurrency: 1, key: 'path[0]' })
  const order: string[] = []
  const answers: (() => void)[] = []
  for (const target of ['/a', '/a', '/a', '/b', '/c']) {
    void policy(requestTo('GET', target), () => {
      order.push(target)
      return new Promise((resolve) => answers.push(() => resolve(answerOf(200))))
    })
  }
  for (let i = 0; i < 5; i++) {
    await clock.advance(0)
    answers.shift()?.()
  }
  await clock.advance(0)
  expect(order).toEqual(['/a', '/a', '/b', '/c', '/a'])
})

test('more callers than the queue holds are refused', async () => {
  const { clock, send } = setup({ limits: [limit(1, 1000)], queue: 3 })
  const callers = Array.from({ length: 6 }, () => send())
  await clock.advance(10_000)
  expect(statuses(await Promise.all(callers))).toEqual([200, 200, 200, 200, 'volume-exhausted', 'volume-exhausted'])
})

test('a caller who leaves or runs out of time leaves the line', async () => {
  const { clock, send, sentAt } = setup({ concurrency: 1 })
  void send(undefined, () => new Promise(() => {}))
  const [gone, late] = [new AbortController(), new AbortController()]
  const callers = [send(requestTo('GET', '/', { signal: gone.signal })), send(requestTo('GET', '/', { signal: late.signal }))]
  await clock.advance(0)
  gone.abort(new CallerGone())
  late.abort(new Problem('upstream-timeout'))
  expect(statuses(await Promise.all(callers))).toEqual(['CallerGone', 'volume-exhausted'])
  expect(sentAt).toHaveLength(1)
})

test('what was used survives a restart where the store does', async () => {
  const clock = testClock()
  const store: Store = { ...memoryStore({ clock }), kind: 'sqlite' }
  const before = setup({ limits: [limit(10, 60_000)] }, { clock, store })
  for (let i = 0; i < 6; i++) await before.send()
  const after = setup({ limits: [limit(10, 60_000)] }, { clock, store })
  const outcomes = await Promise.all(Array.from({ length: 6 }, () => after.send(after.patient(5000))))
  expect(statuses(outcomes)).toEqual([200, 200, 200, 200, 'volume-exhausted', 'volume-exhausted'])
})

test('a queue of 0 still lets those through for whom there is room', async () => {
  const clock = testClock()
  const store: Store = { ...memoryStore({ clock }), kind: 'redis' }
  const { send, patient } = setup({ limits: [limit(2, 60_000)], queue: 0 }, { clock, store })
  expect(statuses([await send(patient(9)), await send(patient(9)), await send(patient(9))])).toEqual([200, 200, 'volume-exhausted'])
})

test('replicas share one volume, whoever asks first', async () => {
  const clock = testClock()
  const store: Store = { ...memoryStore({ clock }), kind: 'redis' }
  const replicas = [1, 2, 3].map(() => setup({ limits: [limit(20, 60_000)] }, { clock, store }))
  const callers = Array.from({ length: 20 }, () => replicas.map((replica) => replica.send())).flat()
  await clock.advance(59_000)
  expect(replicas.flatMap(({ sentAt }) => sentAt)).toHaveLength(20)
  await clock.advance(400_000)
  await Promise.all(callers)
  const sentAt = replicas.flatMap((replica) => replica.sentAt).toSorted((a, b) => a - b)
  expect(sentAt).toHaveLength(60)
  expect(fullestWindow(sentAt, 60_000)).toBe(20)
})

test('keys come and go in any number, and none gets more than its own', async () => {
  const { send, patient } = setup({ limits: [limit(32, 60_000)], key: 'path[0]' })
  const to = (key: number): Promise<Response | Error> => send({ ...patient(1), target: `/${key}` })
  for (let i = 0; i < 32; i++) await to(0)
  for (let key = 1; key <= 20_100; key++) await to(key)
  expect(await to(0)).toMatchObject({ code: 'volume-exhausted' })
  expect(await to(1)).toMatchObject({ status: 200 })
})

test('how full a limit is becomes known: fuller at once, emptier within a second of use, and empty again', async () => {
  const { clock, send, events } = setup({ limits: [limit(10, 60_000)] })
  const ratios = (): number[] => events.flatMap((event) => (event.kind === 'volume' ? [event.usedRatio] : []))
  for (let i = 0; i < 5; i++) await send()
  expect(ratios()).toEqual([0.1, 0.2, 0.3, 0.4, 0.5])
  await clock.advance(40_000)
  await send()
  await clock.advance(40_000)
  await send()
  await clock.advance(200_000)
  expect(ratios().slice(5)).toEqual([0.6, 0.2, 0])
  expect(clock.pending).toBe(0)
})

test('under any load no window holds more than agreed, attempts under way stay bounded, and everybody is served or told', async () => {
  const call = fc.record({ afterMs: fc.nat(400), key: fc.nat(1), patienceMs: fc.constantFrom(0, 500, 5000, 100_000), takesMs: fc.nat(600) })
  await fc.assert(
    fc.asyncProperty(
      fc.array(call, { minLength: 5, maxLength: 80, size: 'max' }),
      fc.integer({ min: 1, max: 6 }),
      fc.integer({ min: 1, max: 4 }),
      async (calls, count, concurrency) => {
        const { clock, policy, patient } = setup({ limits: [limit(count, 1000), limit(count * 3, 10_000)], concurrency, key: 'path[0]', queue: 20 })
        const sentAt: number[][] = [[], []]
        const outcomes: Promise<number | string>[] = []
        let underWay = 0
        let most = 0
        for (const { afterMs, key, patienceMs, takesMs } of calls) {
          await clock.advance(afterMs)
          const outcome = policy({ ...patient(patienceMs), target: `/${key}` }, async () => {
            sentAt[key]?.push(clock.now())
            most = Math.max(most, (underWay += 1))
            await clock.sleep(takesMs)
            underWay -= 1
            return answerOf(200)
          })
          outcomes.push(
            outcome.then(
              ({ status }) => status,
              (error: Problem) => error.code
            )
          )
        }
        await clock.advance(1_000_000)
        expect((await Promise.all(outcomes)).filter((outcome) => outcome !== 200 && outcome !== 'volume-exhausted')).toEqual([])
        expect(most).toBeLessThanOrEqual(concurrency)
        for (const times of sentAt) {
          expect(fullestWindow(times, 1000)).toBeLessThanOrEqual(count)
          expect(fullestWindow(times, 10_000)).toBeLessThanOrEqual(count * 3)
        }
      }
    ),
    { numRuns: 40 }
  )
})

test.each([
  [undefined, '/v1/7/orders', ''],
  ['path[0]', '/v1/7/orders?x=/a/b', 'v1'],
  ['path[1]', '/v1/7/orders', '7'],
  ['path[1]', '/v1/%37/orders', '7'],
  ['path[2]', '/v1/7/orders?x=1', 'orders'],
  ['path[3]', '/v1/7/orders', ''],
  ['path[1]', '/', '']
])('the key %s of %s is %j', (spec, target, expected) => {
  expect(volumeKey(spec)({ target, fields: [] })).toBe(expected)
})

test('a key from a header is told apart without being kept', () => {
  const keyOf = volumeKey('header:X-Api-Key')
  const [one, two, none] = [['x-api-key', 'secret-1'], ['X-API-KEY', 'secret-2'], []].map((fields) => keyOf({ target: '/', fields }))
  expect(new Set([one, two, none]).size).toBe(3)
  expect(none).toBe('')
  expect(one).not.toContain('secret')
})
