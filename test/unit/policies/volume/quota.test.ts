import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Quota } from '../../../../src/policies/volume/quota.ts'
import { memoryStore } from '../../../../src/state/memory.ts'
import type { Store } from '../../../../src/state/store.ts'
import { testClock, type TestClock } from '../../../support/clock.ts'
import { memoryBytes } from '../../../support/memory.ts'
import { reports } from '../../../support/policy-call.ts'
import { fullestWindow } from '../../../support/sliding.ts'

const MINUTE = { count: 100, windowMs: 60_000, label: '100/1m' }

function replica(clock: TestClock, store: Store, rate = MINUTE): Quota {
  return new Quota('volume:acme::x', rate, 0, { clock, store, report: reports().report })
}

/** Takes up to so many units now, refilling as the policy does. */
async function takeAll(quota: Quota, clock: TestClock, wanted: number): Promise<number> {
  let taken = 0
  while (taken < wanted) {
    if (!quota.has(clock.now())) {
      if (quota.freeAt(clock.now(), 1) > clock.now()) break
      await quota.refill(wanted - taken)
      if (!quota.has(clock.now())) continue
    }
    quota.take(clock.now())
    taken += 1
  }
  return taken
}

test('alone it gives the whole limit, and the whole limit again a window later', async () => {
  const clock = testClock()
  const quota = replica(clock, memoryStore({ clock }))
  expect(await takeAll(quota, clock, 150)).toBe(100)
  await clock.advance(60_000 + 1000)
  expect(await takeAll(quota, clock, 150)).toBe(100)
})

test('most units cost no question to the store', async () => {
  const clock = testClock()
  const memory = memoryStore({ clock })
  let asked = 0
  const quota = replica(clock, { ...memory, add: (...args) => ((asked += 1), memory.add(...args)) }, { count: 6400, windowMs: 60_000, label: '' })
  expect(await takeAll(quota, clock, 640)).toBe(640)
  expect(asked).toBeLessThan(64)
})

test('two replicas together get the limit, and what one did not use the other can have later', async () => {
  const clock = testClock()
  const store = memoryStore({ clock })
  const [one, two] = [replica(clock, store), replica(clock, store)]
  expect(await takeAll(one, clock, 1)).toBe(1)
  const rest = await takeAll(two, clock, 150)
  expect(rest).toBeLessThanOrEqual(99)
  expect(rest).toBeGreaterThan(80)
  await clock.advance(16_000)
  one.has(clock.now())
  await clock.advance(2000)
  expect(1 + rest + (await takeAll(two, clock, 150))).toBe(100)
})

test('a killed process takes no more than its block with it, and its successor never goes over', async () => {
  const clock = testClock()
  const store = memoryStore({ clock })
  let used = 0
  for (let life = 0; life < 20; life++) {
    used += await takeAll(replica(clock, store), clock, 7)
    await clock.advance(50)
  }
  expect(used).toBeLessThanOrEqual(100)
  expect(used).toBeGreaterThan(40)
})

test('a small limit is exact over restarts', async () => {
  const clock = testClock()
  const store = memoryStore({ clock })
  const rate = { count: 10, windowMs: 60_000, label: '' }
  expect(await takeAll(replica(clock, store, rate), clock, 6)).toBe(6)
  expect(await takeAll(replica(clock, store, rate), clock, 6)).toBe(4)
})

test('a store that fails leaves this process its own limit', async () => {
  const clock = testClock()
  const { events, report } = reports()
  const store: Store = { ...memoryStore({ clock }), add: () => Promise.reject(new Error('gone')) }
  const quota = new Quota('k', MINUTE, 0, { clock, store, report })
  expect(await takeAll(quota, clock, 150)).toBe(100)
  expect(await takeAll(quota, clock, 1)).toBe(0)
  expect(events.some((event) => event.kind === 'warning')).toBe(true)
})

test('units that a slow store grants after their epoch has ended are not used but given back', async () => {
  const clock = testClock()
  const memory = memoryStore({ clock })
  const totals: number[] = []
  const slow: Store = {
    ...memory,
    async add(...args) {
      const total = await memory.add(...args)
      await clock.sleep(5000)
      totals.push(total)
      return total
    }
  }
  const quota = replica(clock, slow)
  await clock.advance(14_000)
  const refilled = quota.refill(1)
  await clock.advance(5000)
  await refilled
  expect(quota.has(clock.now())).toBe(false)
  await clock.advance(5000)
  expect(totals.at(-1)).toBe(0)
})

test('giving back leaves nothing behind in memory, however often', async () => {
  const clock = testClock()
  const quota = replica(clock, memoryStore({ clock }))
  async function giveBack(times: number): Promise<number> {
    for (let done = 0; done < times; done++) {
      await quota.refill(1)
      quota.close()
    }
    return memoryBytes()
  }
  const before = await giveBack(1000)
  expect((await giveBack(20_000)) - before).toBeLessThan(1024 * 1024)
})

test('no window holds more than agreed over any number of replicas, restarts and pauses', async () => {
  const step = fc.record({ replica: fc.nat(2), wanted: fc.nat(30), afterMs: fc.nat(12_000), dies: fc.integer({ min: 0, max: 9 }).map((dice) => dice === 0) })
  const rates = fc.record({ count: fc.integer({ min: 1, max: 120 }), windowMs: fc.constantFrom(5000, 60_000), label: fc.constant('x') })
  await fc.assert(
    fc.asyncProperty(rates, fc.array(step, { minLength: 5, maxLength: 60, size: 'max' }), async (rate, steps) => {
      const clock = testClock()
      const store = memoryStore({ clock })
      const replicas = [0, 1, 2].map(() => replica(clock, store, rate))
      const taken: number[] = []
      for (const { replica: index, wanted, afterMs, dies } of steps) {
        await clock.advance(afterMs)
        if (dies) replicas[index] = replica(clock, store, rate)
        const count = await takeAll(replicas[index] ?? replica(clock, store, rate), clock, wanted)
        for (let i = 0; i < count; i++) taken.push(clock.now())
      }
      expect(fullestWindow(taken, rate.windowMs)).toBeLessThanOrEqual(rate.count)
    }),
    { numRuns: 60 }
  )
})
