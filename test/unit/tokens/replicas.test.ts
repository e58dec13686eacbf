import { describe, expect, test } from 'vitest'
import { memoryStore } from '../../../src/state/memory.ts'
import type { Store } from '../../../src/state/store.ts'
import { testClock } from '../../support/clock.ts'
import { issued, opened, tokenService } from '../../support/token-service.ts'

/** A token service that answers when told to. */
function slowService(clock: ReturnType<typeof testClock>): { service: ReturnType<typeof tokenService>; answer: () => void } {
  const service = tokenService(clock)
  const gate = Promise.withResolvers<void>()
  service.answer = async () => {
    await gate.promise
    return issued('of-all')
  }
  return { service, answer: gate.resolve }
}

describe('replicas that share a store', () => {
  test('and look at the same moment make one token request together', async () => {
    const clock = testClock()
    const shared = memoryStore({ clock })
    const { service, answer } = slowService(clock)
    // nobody goes on before all have seen that there is no token and nobody asking
    const COUNT = 3
    let looked = 0
    const all = Promise.withResolvers<void>()
    const store: Store = {
      ...shared,
      async peek(key) {
        const found = await shared.peek(key)
        looked += 1
        if (looked === COUNT) all.resolve()
        await all.promise
        return found
      }
    }
    const replicas = await Promise.all(Array.from({ length: COUNT }, () => opened({}, { clock, service, store })))
    const tokens = Promise.all(replicas.map((replica) => replica.bearer()))
    await clock.advance(100)
    answer()
    await clock.advance(100)
    expect(await tokens).toEqual(replicas.map(() => 'Bearer of-all'))
    expect(service.asked).toHaveLength(1)
  })

  test('and of which one comes late to its turn wait for the one that asks already', async () => {
    const clock = testClock()
    const shared = memoryStore({ clock })
    const { service, answer } = slowService(clock)
    const first = await opened({}, { clock, service, store: shared })
    const lateTurn = Promise.withResolvers<void>()
    const store: Store = {
      ...shared,
      async lock(key, ttlMs) {
        await lateTurn.promise
        return shared.lock(key, ttlMs)
      }
    }
    const late = await opened({}, { clock, service, store })
    const theirs = late.bearer()
    await clock.advance(0)
    const ours = first.bearer()
    await clock.advance(0)
    expect(service.asked).toHaveLength(1)
    lateTurn.resolve()
    await clock.advance(100)
    answer()
    await clock.advance(100)
    expect(await Promise.all([ours, theirs])).toEqual(['Bearer of-all', 'Bearer of-all'])
    expect(service.asked).toHaveLength(1)
  })
})
