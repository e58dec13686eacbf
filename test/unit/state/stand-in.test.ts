import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Event } from '../../../src/exchange/events.ts'
import { Unavailable, type Backend } from '../../../src/state/backend.ts'
import { memoryStore } from '../../../src/state/memory.ts'
import { withStandIn } from '../../../src/state/stand-in.ts'
import type { Store } from '../../../src/state/store.ts'
import { testClock, type TestClock } from '../../support/clock.ts'

/** A place outside: a memory store that can be switched off, and that counts what it is asked. */
function place(clock: TestClock) {
  const data = memoryStore({ clock })
  const locks = new Map<string, { holder: string; release(): Promise<void> }>()
  const self = { available: true, asked: 0, opened: 0, data, drop: (): void => {} }

  async function ask<T>(answer: () => Promise<T>): Promise<T> {
    self.asked++
    if (!self.available) throw new Unavailable('the place is away')
    return answer()
  }
  const backend = (): Backend => ({
    get: (key) =>
      ask(async () => {
        const value = await data.get(key)
        return value === undefined ? undefined : { value, ttlMs: undefined }
      }),
    put: (key, value, ttlMs, fence) =>
      ask(() => data.put(key, value, { ...(ttlMs === undefined ? {} : { ttlMs }), ...(fence === undefined ? {} : { fence }) })),
    delete: (key) => ask(() => data.delete(key)),
    keys: (prefix) => ask(() => data.keys(prefix)),
    add: (key, amount, ttlMs) => ask(() => data.add(key, amount, ttlMs)),
    lock: (key, holder, ttlMs, above) =>
      ask(async () => {
        const lock = await data.lock(key, ttlMs)
        if (lock !== undefined) locks.set(key, { holder, release: lock.release })
        return lock === undefined ? undefined : Math.max(lock.fence, above + 1)
      }),
    unlock: (key, holder) =>
      ask(async () => {
        if (locks.get(key)?.holder === holder) await locks.get(key)?.release()
      }),
    close: async () => {}
  })
  async function open(lost: (cause: unknown) => void): Promise<Backend> {
    self.opened++
    if (!self.available) throw new Unavailable('the place is away')
    self.drop = () => lost(new Unavailable('the place has hung up'))
    return backend()
  }
  return Object.assign(self, { open })
}

describe('a store with a stand-in', () => {
  let clock: TestClock
  let outside: ReturnType<typeof place>
  let events: Event[]
  let store: Store

  const openStore = (): Promise<Store> => withStandIn('redis', outside.open, { clock, random: () => 0.5, report: (event) => void events.push(event) })

  beforeEach(async () => {
    clock = testClock()
    outside = place(clock)
    events = []
    store = await openStore()
  })
  afterEach(() => store.close())

  function away(): void {
    outside.available = false
  }
  async function back(): Promise<void> {
    outside.available = true
    await clock.advance(2_000)
  }

  test('serves the last known values while the place is away, and does not ask it', async () => {
    await store.put('written', Buffer.from('1'))
    await outside.data.put('read', Buffer.from('2'))
    await store.get('read')
    away()
    expect(String(await store.get('written'))).toBe('1')
    const { asked } = outside
    expect(String(await store.get('read'))).toBe('2')
    expect((await store.keys('')).toSorted()).toEqual(['read', 'written'])
    expect(outside.asked).toBe(asked)
  })

  test('does not remember what it only peeked at, but for its own', async () => {
    await outside.data.put('theirs', Buffer.from('mark'))
    await store.put('ours', Buffer.from('mark'))
    expect([await store.peek('theirs'), await store.peek('ours')]).toEqual([Buffer.from('mark'), Buffer.from('mark')])
    outside.available = false
    expect([await store.peek('theirs'), await store.peek('ours')]).toEqual([undefined, Buffer.from('mark')])
  })

  test('forgets from the mirror what others deleted or let expire', async () => {
    await store.put('a', Buffer.from('1'))
    await outside.data.delete('a')
    expect(await store.get('a')).toBeUndefined()
    away()
    expect(await store.get('a')).toBeUndefined()
  })

  test('writes made meanwhile reach the place when it is back, the last of each key', async () => {
    away()
    await store.put('a', Buffer.from('1'))
    await store.put('a', Buffer.from('2'))
    await store.put('gone', Buffer.from('1'))
    await store.delete('gone')
    expect(await outside.data.get('a')).toBeUndefined()
    await back()
    expect(String(await outside.data.get('a'))).toBe('2')
    expect(await outside.data.get('gone')).toBeUndefined()
  })

  test('a deletion made meanwhile is made good', async () => {
    await store.put('a', Buffer.from('1'))
    away()
    await store.delete('a')
    expect(await store.get('a')).toBeUndefined()
    await back()
    expect(await outside.data.get('a')).toBeUndefined()
  })

  test('a record that has expired meanwhile is not written', async () => {
    away()
    await store.put('a', Buffer.from('1'), { ttlMs: 60_000 })
    await clock.advance(61_000)
    await back()
    expect(await outside.data.keys('')).toEqual([])
  })

  test('a record keeps the rest of its lifetime, not a new one', async () => {
    away()
    await store.put('a', Buffer.from('1'), { ttlMs: 60_000 })
    await clock.advance(50_000)
    await back()
    expect(await outside.data.get('a')).toBeDefined()
    await clock.advance(10_000)
    expect(await outside.data.get('a')).toBeUndefined()
  })

  test('a fenced write made meanwhile gives way to a successor who wrote in the place', async () => {
    const lock = await store.lock('l', 600_000)
    const fence = lock?.fence ?? NaN
    away()
    await store.put('a', Buffer.from('mine'), { fence })
    await outside.data.put('a', Buffer.from('successor'), { fence: fence + 1 })
    await back()
    expect(String(await store.get('a'))).toBe('successor')
  })

  test('counters go on from the last known value, and the place learns what was added', async () => {
    await outside.data.add('n', 10, 600_000)
    expect(await store.add('n', 1, 600_000)).toBe(11)
    away()
    expect(await store.add('n', 1, 600_000)).toBe(12)
    expect(await store.add('n', 2, 600_000)).toBe(14)
    await outside.data.add('n', 100, 600_000)
    await back()
    expect(await store.add('n', 0, 600_000)).toBe(114)
    away()
    expect(await store.add('n', 1, 600_000)).toBe(115)
  })

  test('a second outage does not pay the first one’s debts again', async () => {
    away()
    await store.add('n', 5, 600_000)
    await store.put('a', Buffer.from('old'))
    await back()
    await outside.data.put('a', Buffer.from('newer'))
    away()
    await store.get('x')
    await back()
    expect(await store.add('n', 0, 600_000)).toBe(5)
    expect(String(await store.get('a'))).toBe('newer')
  })

  test('a lock taken before the outage is held through it, its release made good', async () => {
    const lock = await store.lock('l', 600_000)
    away()
    expect(await store.lock('l', 600_000)).toBeUndefined()
    await lock?.release()
    expect(await outside.data.lock('l', 1)).toBeUndefined()
    await back()
    expect(await outside.data.lock('l', 600_000)).toBeDefined()
  })

  test('locks are the own process’s while the place is away, with fences that go on growing', async () => {
    const before = await store.lock('l', 600_000)
    await before?.release()
    away()
    const during = await store.lock('l', 600_000)
    expect(await store.lock('l', 600_000)).toBeUndefined()
    await during?.release()
    await back()
    const after = await store.lock('l', 600_000)
    const fences = [before, during, after].map((lock) => lock?.fence ?? NaN)
    expect(fences[1]).toBeGreaterThan(fences[0] ?? NaN)
    expect(fences[2]).toBeGreaterThan(fences[1] ?? NaN)
  })

  test('is back in use within 5 s however long the place was away', async () => {
    away()
    await store.get('a')
    await clock.advance(3_600_000)
    outside.available = true
    await clock.advance(5_000)
    const { asked } = outside
    await store.get('a')
    expect(outside.asked).toBe(asked + 1)
  })

  test('probes an absent place neither in a storm nor never', async () => {
    away()
    await store.get('a')
    const { opened } = outside
    await clock.advance(60_000)
    expect(outside.opened - opened).toBeGreaterThan(25)
    expect(outside.opened - opened).toBeLessThan(60)
  })

  test('an outage is one warning, and repeated outages one a minute', async () => {
    for (let turn = 0; turn < 5; turn++) {
      away()
      await store.get('a')
      await back()
    }
    expect(events).toEqual([{ kind: 'warning', about: 'state', message: 'the place is away; working from memory until it is back' }])
    await clock.advance(60_000)
    away()
    await store.get('a')
    expect(events).toHaveLength(2)
  })

  test('notices by itself that the place has hung up: no caller pays for finding out', async () => {
    away()
    outside.drop()
    const { asked } = outside
    await store.put('a', Buffer.from('1'))
    expect(outside.asked).toBe(asked)
  })

  test('opens while the place is away', async () => {
    away()
    const late = await openStore()
    await late.put('a', Buffer.from('1'))
    await back()
    expect(String(await outside.data.get('a'))).toBe('1')
    await late.close()
  })

  test('what is owed is bounded, the newest kept', async () => {
    away()
    for (let n = 0; n < 1_500; n++) await store.put(`k${n}`, Buffer.from('v'))
    await back()
    const written = await outside.data.keys('')
    expect(written).toHaveLength(1_000)
    expect(written).toContain('k1499')
  })

  test('after close nothing is left running', async () => {
    away()
    await store.get('a')
    await store.close()
    const { opened } = outside
    await clock.advance(60_000)
    expect(outside.opened).toBe(opened)
    expect(clock.pending).toBe(0)
  })
})
