import { expect, test } from 'vitest'
import { memoryStore } from '../../../src/state/memory.ts'
import { testClock } from '../../support/clock.ts'
import { storeContract } from '../../support/store-contract.ts'

storeContract('memory', async () => {
  const clock = testClock()
  const store = memoryStore({ clock })
  return { store, pass: (ms) => clock.advance(ms), dispose: () => store.close() }
})

test('over its bound of records the ones written longest ago go first', async () => {
  const store = memoryStore({ clock: testClock() }, { entries: 10, bytes: 1_000 })
  for (let n = 0; n < 11; n++) await store.put(`k${n}`, Buffer.from('v'))
  const left = await store.keys('')
  expect(left.length).toBeLessThanOrEqual(10)
  expect(left).toContain('k10')
  expect(left).not.toContain('k0')
})

test('over its bound of bytes the ones written longest ago go first', async () => {
  const store = memoryStore({ clock: testClock() }, { entries: 1_000, bytes: 1_000 })
  for (let n = 0; n < 5; n++) await store.put(`k${n}`, Buffer.alloc(300))
  expect(await store.get('k0')).toBeUndefined()
  expect(await store.get('k4')).toBeDefined()
})

test('counters and locks are bounded too', async () => {
  const clock = testClock()
  const store = memoryStore({ clock }, { entries: 10, bytes: 1_000 })
  for (let n = 0; n < 50; n++) await store.add(`n${n}`, 1, 1_000)
  expect(await store.add('n0', 1, 1_000)).toBe(1)
  expect(await store.add('n49', 1, 1_000)).toBe(2)
})
