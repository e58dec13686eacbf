import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Store } from '../../src/state/store.ts'

export type StoreUnderTest = {
  readonly store: Store
  /** Lets clock time pass. */
  pass(ms: number): Promise<void>
  dispose(): Promise<void>
}

// Long against a busy machine, short against a reader's patience: the Redis store runs on a clock 100 times as fast.
const TTL_MS = 30_000

/** The promises every store makes, whatever it keeps its state in. */
export function storeContract(name: string, open: () => Promise<StoreUnderTest>): void {
  describe(`a ${name} store`, () => {
    let subject: StoreUnderTest
    let store: Store

    beforeEach(async () => {
      subject = await open()
      store = subject.store
    })
    afterEach(() => subject.dispose())

    test('gives back the bytes it was given', async () => {
      const value = Buffer.from([0, 255, 10, 13, 128, 0])
      expect(await store.put('a', value)).toBe(true)
      expect(await store.get('a')).toEqual(value)
      expect(await store.get('b')).toBeUndefined()
    })

    test('keeps its own copy of a value', async () => {
      const value = Buffer.from('before')
      await store.put('a', value)
      value.write('after!')
      expect(String(await store.get('a'))).toBe('before')
    })

    test('takes empty values and any key', async () => {
      for (const key of ['', 'ø/%2f ?*[]\\', "'; DROP TABLE records; --", 'k'.repeat(1000)]) {
        await store.put(key, Buffer.alloc(0))
        expect(await store.get(key)).toEqual(Buffer.alloc(0))
      }
    })

    test('replaces the value and the lifetime at each put', async () => {
      await store.put('a', Buffer.from('1'), { ttlMs: TTL_MS })
      await store.put('a', Buffer.from('2'))
      await subject.pass(TTL_MS + 1_000)
      expect(String(await store.get('a'))).toBe('2')
    })

    test('forgets a record when its time is up, not before', async () => {
      await store.put('a', Buffer.from('1'), { ttlMs: TTL_MS })
      await store.put('b', Buffer.from('1'), { ttlMs: 10 * TTL_MS })
      expect(await store.get('a')).toBeDefined()
      await subject.pass(TTL_MS + 1_000)
      expect(await store.get('a')).toBeUndefined()
      expect(await store.keys('')).toEqual(['b'])
    })

    test('deletes records and counters', async () => {
      await store.put('a', Buffer.from('1'))
      await store.add('a', 5, TTL_MS)
      await store.delete('a')
      expect(await store.get('a')).toBeUndefined()
      expect(await store.add('a', 1, TTL_MS)).toBe(1)
    })

    test('lists records by prefix, taking it literally', async () => {
      for (const key of ['token:a', 'token:b', 'token*', 'tok', 'TOKEN:c', 'x']) await store.put(key, Buffer.from('1'))
      await store.add('token:counter', 1, TTL_MS)
      expect((await store.keys('token:')).toSorted()).toEqual(['token:a', 'token:b'])
      expect(await store.keys('token*')).toEqual(['token*'])
      expect(await store.keys('nothing')).toEqual([])
      expect((await store.keys('')).length).toBe(6)
    })

    test('refuses a put with a lower fence than the last one', async () => {
      expect(await store.put('a', Buffer.from('7'), { fence: 7 })).toBe(true)
      expect(await store.put('a', Buffer.from('6'), { fence: 6 })).toBe(false)
      expect(String(await store.get('a'))).toBe('7')
      expect(await store.put('a', Buffer.from('7b'), { fence: 7 })).toBe(true)
      expect(await store.put('a', Buffer.from('8'), { fence: 8 })).toBe(true)
      expect(String(await store.get('a'))).toBe('8')
    })

    test('a put without a fence passes, and does not let a lower fence in again', async () => {
      await store.put('a', Buffer.from('7'), { fence: 7 })
      expect(await store.put('a', Buffer.from('plain'))).toBe(true)
      expect(await store.put('a', Buffer.from('6'), { fence: 6 })).toBe(false)
      expect(String(await store.get('a'))).toBe('plain')
    })

    test('counts, also by fractions and downwards', async () => {
      expect(await store.add('n', 1, TTL_MS)).toBe(1)
      expect(await store.add('n', 2.5, TTL_MS)).toBe(3.5)
      expect(await store.add('n', -0.5, TTL_MS)).toBe(3)
      expect(await store.add('other', 1, TTL_MS)).toBe(1)
    })

    test('looks at a counter without starting its time', async () => {
      expect(await store.add('n', 0, TTL_MS)).toBe(0)
      expect(await store.add('n', 4, 10 * TTL_MS)).toBe(4)
      await subject.pass(TTL_MS + 1_000)
      expect(await store.add('n', 0, TTL_MS)).toBe(4)
    })

    test('loses no count to parallel additions', async () => {
      const seen = await Promise.all(Array.from({ length: 200 }, () => store.add('n', 1, 10 * TTL_MS)))
      expect(seen.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 200 }, (_, i) => i + 1))
    })

    test('a counter vanishes its time after the first use, however often it is used', async () => {
      await store.add('n', 1, TTL_MS)
      await subject.pass(TTL_MS / 2)
      await store.add('n', 1, TTL_MS)
      await subject.pass(TTL_MS / 2 + 1_000)
      expect(await store.add('n', 1, TTL_MS)).toBe(1)
    })

    test('gives a lock to one holder at a time', async () => {
      const first = await store.lock('l', 10 * TTL_MS)
      expect(first).toBeDefined()
      expect(await store.lock('l', TTL_MS)).toBeUndefined()
      expect(await store.lock('another', TTL_MS)).toBeDefined()
      await first?.release()
      expect(await store.lock('l', TTL_MS)).toBeDefined()
    })

    test('gives a lock to exactly one of many who ask at once', async () => {
      const locks = await Promise.all(Array.from({ length: 50 }, () => store.lock('l', 10 * TTL_MS)))
      expect(locks.filter((lock) => lock !== undefined)).toHaveLength(1)
    })

    test('takes a lock back when its time is up, and a late release does not touch the next holder', async () => {
      const late = await store.lock('l', TTL_MS)
      await subject.pass(TTL_MS + 1_000)
      const next = await store.lock('l', 10 * TTL_MS)
      expect(next).toBeDefined()
      await late?.release()
      expect(await store.lock('l', TTL_MS)).toBeUndefined()
    })

    test('fences of one key only grow, and keep a paused holder from writing', async () => {
      const fences: number[] = []
      for (let turn = 0; turn < 5; turn++) {
        const lock = await store.lock('l', 10 * TTL_MS)
        fences.push(lock?.fence ?? NaN)
        await lock?.release()
      }
      expect(fences).toEqual(fences.toSorted((a, b) => a - b))
      expect(new Set(fences).size).toBe(5)
      const [paused = NaN, successor = NaN] = fences.slice(-2)
      expect(await store.put('r', Buffer.from('successor'), { fence: successor })).toBe(true)
      expect(await store.put('r', Buffer.from('paused'), { fence: paused })).toBe(false)
    })

    test('holds a megabyte', async () => {
      const value = Buffer.alloc(1024 * 1024, 'x')
      await store.put('big', value)
      expect((await store.get('big'))?.equals(value)).toBe(true)
    })
  })
}
