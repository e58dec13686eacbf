import { beforeEach, describe, expect, test } from 'vitest'
import type { Event } from '../../../../src/exchange/events.ts'
import { memoryStore } from '../../../../src/state/memory.ts'
import type { Store } from '../../../../src/state/store.ts'
import { DAY_MS } from '../../../../src/tokens/keys/expiry.ts'
import { watchExpiry } from '../../../../src/tokens/keys/watch-expiry.ts'
import type { TokenSource } from '../../../../src/tokens/source.ts'
import { testClock, type TestClock } from '../../../support/clock.ts'

describe('watching for the end of credentials', () => {
  let clock: TestClock
  let store: Store
  let events: Event[]
  let ends: Record<string, number | undefined>

  beforeEach(() => {
    clock = testClock()
    store = memoryStore({ clock })
    events = []
    ends = {}
  })

  const source = (name: string): TokenSource => ({
    name,
    grant: 'client_credentials',
    identity: () => name,
    authorize: () => Promise.reject(new Error('nobody asks')),
    rejected: () => Promise.resolve(false),
    status() {
      const end = ends[name]
      return { name, grant: 'client_credentials', state: 'empty', tokenRequests: 0, ...(end === undefined ? {} : { credentialExpiresAt: end }) }
    },
    close: () => Promise.resolve()
  })
  const watch = () => watchExpiry({ all: () => Object.keys(ends).map(source) }, { clock, random: () => 0.5, report: (event) => void events.push(event), store })
  const warnings = (): string[] => events.filter((event) => event.kind === 'warning').map((event) => event.message)

  test('reports every end at once and every hour, for those that have one', async () => {
    ends = { a: clock.wallNow() + 400 * DAY_MS, b: undefined }
    watch()
    await clock.advance(0)
    expect(events).toEqual([{ kind: 'credential-expiry', credential: 'a', expiresAt: ends['a'] }])
    await clock.advance(2 * 3_600_000)
    expect(events).toHaveLength(3)
  })

  test('warns once at each threshold: 30, 28, 21, 14, 7, 1 days and the end', async () => {
    const end = clock.wallNow() + 31.5 * DAY_MS
    ends = { a: end }
    watch()
    const seen: number[] = []
    for (let hour = 0; hour < 34 * 24; hour++) {
      await clock.advance(3_600_000)
      if (warnings().length > seen.length) seen.push(Math.ceil((end - clock.wallNow()) / DAY_MS))
    }
    expect(seen).toEqual([30, 28, 21, 14, 7, 1, 0])
  })

  test('names the credential, the day and by when its successor was due', async () => {
    ends = { partner: Date.UTC(2026, 5, 15) }
    watch()
    await clock.advance(0)
    expect(events).toContainEqual({
      kind: 'warning',
      about: 'partner',
      message:
        'the key of credential partner ends in 14 days, on 2026-06-15; its successor is due at the provider by 2026-05-18, make it with attache keys rotate'
    })
  })

  test('a restart does not repeat a warning, and one for the latest threshold makes up for those slept through', async () => {
    ends = { a: clock.wallNow() + 30 * DAY_MS }
    watch().close()
    await clock.advance(0)
    expect(warnings()).toHaveLength(1)
    watch().close()
    await clock.advance(0)
    expect(warnings()).toHaveLength(1)
    await clock.advance(24 * DAY_MS)
    watch().close()
    await clock.advance(0)
    expect(warnings()).toHaveLength(2)
    expect(warnings()[1]).toContain('6 days')
  })

  test('of replicas on one store, one warns', async () => {
    ends = { a: clock.wallNow() + 30 * DAY_MS }
    watch()
    watch()
    await clock.advance(3_600_000)
    expect(warnings()).toHaveLength(1)
  })

  test('a renewed certificate begins anew', async () => {
    ends = { a: clock.wallNow() + DAY_MS }
    watch()
    await clock.advance(0)
    ends = { a: clock.wallNow() + 365 * DAY_MS }
    await clock.advance(340 * DAY_MS)
    expect(warnings()).toHaveLength(3)
    expect(warnings()[2]).toContain('28 days')
  })

  test('is not fooled by running time: the calendar counts', async () => {
    ends = { a: clock.wallNow() + 40 * DAY_MS }
    watch()
    await clock.advance(0)
    clock.shiftWall(20 * DAY_MS)
    await clock.advance(3_600_000)
    expect(warnings()).toHaveLength(1)
  })

  test('closed, it leaves no timer', async () => {
    ends = { a: clock.wallNow() + DAY_MS }
    const closed = watch()
    await clock.advance(0)
    closed.close()
    expect(clock.pending).toBe(0)
  })
})
