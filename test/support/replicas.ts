import { afterAll, afterEach, beforeAll, beforeEach } from 'vitest'
import { systemClock } from '../../src/exchange/clock.ts'
import type { Event } from '../../src/exchange/events.ts'
import { openSecondTier } from '../../src/state/open-store.ts'
import type { SecondTier } from '../../src/state/second-tier.ts'
import { cached, textOf, type Cached, type CachedSetup } from './cached.ts'
import { realRedis, type RealRedis } from './redis.ts'

/** Caches of replicas with a second tier in one real Redis, and a look into it. */
export type Replicas = {
  readonly events: readonly Event[]
  tierAt(url?: string, clock?: ReturnType<typeof systemClock>): Promise<SecondTier>
  /** A cache of a process of its own, before an origin whose answers are fresh for a minute. */
  replica(setup?: CachedSetup): Promise<Cached>
  two(setup?: CachedSetup): Promise<[Cached, Cached]>
  lines(command: string): Promise<string[]>
  /** Every record there is, as key and slot. */
  records(): Promise<KeptRecord[]>
  untilKept(count: number): Promise<KeptRecord[]>
  /** Has the replica ask, and waits until what it got is in Redis. */
  keptBy(room: Cached, ...targets: string[]): Promise<KeptRecord[]>
  closeAll(): Promise<void>
}

type KeptRecord = readonly [key: string, slot: string]

export const FRESH = ['Cache-Control', 'max-age=60']

/** For the tests of one `describe`: a real Redis, empty at the start of each, and replicas that are closed at its end. */
export function sharedRedis(binary: string): { readonly redis: RealRedis; readonly house: Replicas } {
  let redis: RealRedis
  let house: Replicas
  beforeAll(async () => {
    redis = await realRedis(binary)
    await redis.start()
  })
  afterAll(() => redis.remove())
  beforeEach(async () => {
    house = replicasOf(redis)
    await redis.command('FLUSHALL')
  })
  afterEach(async () => {
    redis.thaw()
    await house.closeAll()
  })
  return {
    get redis() {
      return redis
    },
    get house() {
      return house
    }
  }
}

function replicasOf(redis: RealRedis): Replicas {
  const events: Event[] = []
  const opened: SecondTier[] = []

  async function tierAt(url = redis.url, clock = systemClock()): Promise<SecondTier> {
    const tier = await openSecondTier(url, { clock, random: Math.random, report: (event) => void events.push(event) })
    if (tier === undefined) throw new Error('no tier')
    opened.push(tier)
    return tier
  }
  async function replica(setup: CachedSetup = {}): Promise<Cached> {
    const room = cached({ secondTier: true, tier: await tierAt(), ...setup })
    room.origin({ fields: FRESH })
    return room
  }
  async function lines(command: string): Promise<string[]> {
    return (await redis.command(command)).split('\r\n').filter((line) => line !== '' && !/^[*$]\d/.test(line))
  }
  async function records(): Promise<KeptRecord[]> {
    const shelves = await lines('KEYS attache:answers:*:*')
    const slots = await Promise.all(shelves.map(async (key) => (await lines(`HKEYS ${key}`)).map((slot): KeptRecord => [key, slot])))
    return slots.flat().filter(([, slot]) => slot !== 'g')
  }
  function untilKept(count: number): Promise<KeptRecord[]> {
    return until(`${count} records`, async () => {
      const found = await records()
      return found.length === count ? found : undefined
    })
  }
  return {
    events,
    tierAt,
    replica,
    two: async (setup) => [await replica(setup), await replica(setup)],
    lines,
    records,
    untilKept,
    async keptBy(room, ...targets) {
      const before = await records()
      for (const target of targets) await textOf(await room.get(target))
      return untilKept(before.length + targets.length)
    },
    async closeAll() {
      for (const tier of opened) await tier.close()
    }
  }
}

/** Asks until it is so; fails after 5 s. */
export async function until<T>(what: string, found: () => Promise<T | undefined>): Promise<T> {
  const giveUpAt = performance.now() + 5_000
  while (performance.now() < giveUpAt) {
    const value = await found()
    if (value !== undefined) return value
    await new Promise((resolve) => setImmediate(resolve))
  }
  throw new Error(`${what}: not within 5 s`)
}
