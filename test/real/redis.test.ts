import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { systemClock } from '../../src/exchange/clock.ts'
import type { Event } from '../../src/exchange/events.ts'
import { openStore } from '../../src/state/open-store.ts'
import type { Store } from '../../src/state/store.ts'
import { requireReal } from '../support/real.ts'
import { realRedis, type RealRedis } from '../support/redis.ts'
import { slowProxy, type SlowProxy } from '../support/slow-proxy.ts'
import { storeContract } from '../support/store-contract.ts'

// What other work on the machine may add to the promised 50 ms.
const BUSY_MACHINE_MS = 100

const binary = requireReal('redis-server')

describe.skipIf(binary === undefined)('with a real Redis', () => {
  let redis: RealRedis
  let events: Event[]
  const open: Store[] = []
  const proxies: SlowProxy[] = []

  beforeAll(async () => {
    redis = await realRedis(binary ?? '')
    await redis.start()
  })
  afterAll(() => redis.remove())
  beforeEach(async () => {
    events = []
    await redis.command('FLUSHALL')
  })
  afterEach(async () => {
    for (const store of open.splice(0)) await store.close()
    for (const proxy of proxies.splice(0)) await proxy.close()
  })

  async function storeAt(url = redis.url, clock = systemClock()): Promise<Store> {
    const store = await openStore(url, { clock, random: Math.random, report: (event) => void events.push(event) })
    open.push(store)
    return store
  }
  async function proxied(): Promise<{ proxy: SlowProxy; url: string }> {
    const proxy = await slowProxy(redis.port)
    proxies.push(proxy)
    return { proxy, url: `redis://127.0.0.1:${proxy.port}/0` }
  }
  /** Asks until Redis itself gives the answer; fails after 5 s. */
  async function inRedis(key: string, value: string): Promise<void> {
    const until = Date.now() + 5_000
    while (Date.now() < until) {
      if ((await redis.command(`HGET attache:record:${key} v`)).includes(value)) return
      await new Promise((resolve) => setImmediate(resolve))
    }
    throw new Error(`${key} has not come to redis within 5 s`)
  }
  async function timed(work: () => Promise<unknown>): Promise<number> {
    const before = performance.now()
    await work()
    return performance.now() - before
  }
  const warnings = (): string[] => events.map((event) => (event.kind === 'warning' ? event.message : event.kind))

  storeContract('redis', async () => {
    // A lifetime of 30 s is 300 ms here: Redis keeps its own time, which nobody can advance.
    const clock = systemClock(100)
    const store = await storeAt(redis.url, clock)
    return { store, pass: (ms) => clock.sleep(ms), dispose: async () => {} }
  })

  test('replicas share records, counters and locks', async () => {
    const [a, b, c] = [await storeAt(), await storeAt(), await storeAt()]
    await a.put('r', Buffer.from('from a'))
    expect(String(await b.get('r'))).toBe('from a')
    const sums = await Promise.all([a, b, c].flatMap((store) => Array.from({ length: 50 }, () => store.add('n', 1, 60_000))))
    expect(sums.toSorted((x, y) => x - y)).toEqual(Array.from({ length: 150 }, (_, n) => n + 1))
    const locks = await Promise.all([a, b, c].map((store) => store.lock('l', 60_000)))
    expect(locks.filter((lock) => lock !== undefined)).toHaveLength(1)
    for (const lock of locks) await lock?.release()
    expect(await c.lock('l', 60_000)).toBeDefined()
  })

  test('every key is under attache: and has a lifetime where it was given one', async () => {
    const store = await storeAt()
    await store.put('r', Buffer.from('v'), { ttlMs: 60_000 })
    await store.add('n', 1, 60_000)
    await store.lock('l', 60_000)
    const keys = (await redis.command('KEYS *')).split('\r\n').filter((line) => line !== '' && !/^[*$]/.test(line))
    expect(keys.toSorted()).toEqual(['attache:counter:n', 'attache:fence:', 'attache:lock:l', 'attache:probe:', 'attache:record:r'])
    for (const key of ['attache:counter:n', 'attache:lock:l', 'attache:record:r']) {
      const ttl = Number((await redis.command(`PTTL ${key}`)).slice(1))
      expect(ttl).toBeGreaterThan(50_000)
      expect(ttl).toBeLessThanOrEqual(60_000)
    }
  })

  test('a blocked event loop of our own is not taken for a slow Redis', async () => {
    const store = await storeAt()
    for (let turn = 0; turn < 3; turn++) {
      const answer = store.add('n', 1, 60_000)
      const until = performance.now() + 100
      // The call is sent first; its answer then lies in the socket while nobody reads.
      await new Promise((resolve) => setImmediate(resolve))
      while (performance.now() < until);
      expect(await answer).toBe(turn + 1)
    }
    expect(events).toEqual([])
  })

  test('another database is another state', async () => {
    const [zero, one] = [await storeAt(), await storeAt(redis.url.replace('/0', '/1'))]
    await zero.put('r', Buffer.from('v'))
    expect(await one.get('r')).toBeUndefined()
  })

  test('emptied, it goes on with higher fences', async () => {
    const store = await storeAt()
    const before = await store.lock('l', 60_000)
    await before?.release()
    await redis.command('FLUSHALL')
    expect((await store.lock('l', 60_000))?.fence).toBeGreaterThan(before?.fence ?? NaN)
  })

  describe('that is stopped in its tracks', () => {
    afterEach(() => redis.thaw())

    test('costs the first caller 50 ms and the next ones 1 ms, and is back in use within 5 s', async () => {
      const store = await storeAt()
      await store.put('r', Buffer.from('known'))
      redis.freeze()
      const first = await timed(async () => expect(String(await store.get('r'))).toBe('known'))
      expect(first).toBeLessThan(50 + BUSY_MACHINE_MS)
      const later: number[] = []
      for (let n = 0; n < 50; n++) {
        later.push(await timed(() => store.get('r')), await timed(() => store.add('n', 1, 60_000)), await timed(() => store.put(`w${n}`, Buffer.from('w'))))
      }
      expect(later.toSorted((a, b) => a - b)[Math.floor(later.length / 2)]).toBeLessThan(1)
      redis.thaw()
      await inRedis('w49', 'w')
      expect(await store.add('n', 0, 60_000)).toBe(50)
      expect(warnings()).toEqual(['redis gives no answer in time; working from memory until it is back'])
    })

    test('makes a hundred callers at once wait no longer than one', async () => {
      const store = await storeAt()
      redis.freeze()
      const took = await timed(() => Promise.all(Array.from({ length: 100 }, (_, n) => store.put(`k${n}`, Buffer.from('v')))))
      expect(took).toBeLessThan(50 + BUSY_MACHINE_MS)
    })

    test('leaves no lock behind that was asked for and not answered', async () => {
      const store = await storeAt()
      redis.freeze()
      const lock = await store.lock('l', 3_600_000)
      expect(lock).toBeDefined()
      await store.put('marker', Buffer.from('m'))
      await lock?.release()
      redis.thaw()
      await inRedis('marker', 'm')
      const other = await storeAt()
      expect(await other.lock('l', 1_000)).toBeDefined()
    })

    test('at start: opens all the same, and goes over to it when it answers', async () => {
      redis.freeze()
      let store: Store | undefined
      expect(await timed(async () => (store = await storeAt()))).toBeLessThan(1_000)
      await store?.put('r', Buffer.from('v'))
      redis.thaw()
      await inRedis('r', 'v')
    })
  })

  test('killed and started again: callers notice nothing, writes are made good', async () => {
    const store = await storeAt()
    await store.put('before', Buffer.from('b'))
    await redis.kill()
    expect(await timed(async () => expect(String(await store.get('before'))).toBe('b'))).toBeLessThan(50)
    await store.put('during', Buffer.from('d'))
    expect(await store.lock('l', 60_000)).toBeDefined()
    await redis.start()
    await inRedis('during', 'd')
    expect(warnings()).toHaveLength(1)
  })

  test('absent at start: opens all the same', async () => {
    await redis.kill()
    const store = await storeAt()
    await store.put('r', Buffer.from('v'))
    expect(String(await store.get('r'))).toBe('v')
    expect(warnings()).toEqual(['redis cannot be reached; working from memory until it is back'])
    await redis.start()
    await inRedis('r', 'v')
  })

  test('slow by 5 s: callers wait for memory only', async () => {
    const { proxy, url } = await proxied()
    const store = await storeAt(url)
    await store.put('r', Buffer.from('v'))
    proxy.delay(5_000)
    expect(await timed(async () => expect(String(await store.get('r'))).toBe('v'))).toBeLessThan(50 + BUSY_MACHINE_MS)
    expect(await timed(() => store.add('n', 1, 60_000))).toBeLessThan(10)
    proxy.delay(0)
    await store.put('after', Buffer.from('a'))
    await inRedis('after', 'a')
  })

  test('half-open: a connection that says nothing any more is given up', async () => {
    const { proxy, url } = await proxied()
    const store = await storeAt(url)
    proxy.delay(Infinity)
    expect(await timed(() => store.put('r', Buffer.from('v')))).toBeLessThan(50 + BUSY_MACHINE_MS)
    proxy.delay(0)
    await store.put('after', Buffer.from('a'))
    await inRedis('after', 'a')
  })

  for (const nonsense of ['HTTP/1.1 400 Bad Request\r\n\r\n', ':1\r\n', '*1\r\n$3\r\nfoo\r\n', '\0\0\0\0', '*99999999999\r\n', '-ERR no\r\n']) {
    test(`answers ${JSON.stringify(nonsense)} are no answers`, async () => {
      const { proxy, url } = await proxied()
      const store = await storeAt(url)
      await store.put('r', Buffer.from('v'))
      proxy.answerWith(nonsense)
      const took = await timed(async () => {
        expect(String(await store.get('r'))).toBe('v')
      })
      expect(took).toBeLessThan(50 + BUSY_MACHINE_MS)
      expect(await store.put('r', Buffer.from('w'))).toBe(true)
      expect(Number.isFinite(await store.add('n', 1, 60_000))).toBe(true)
      expect(warnings()).toHaveLength(1)
    })
  }

  describe('that refuses', () => {
    afterEach(async () => {
      await redis.kill()
      await redis.start()
    })

    const refusals: Record<string, { switchOn: () => Promise<unknown>; warning: string }> = {
      'writes as a read-only replica': { switchOn: () => redis.command('REPLICAOF 127.0.0.1 1'), warning: 'redis is a read-only replica' },
      'writes out of memory': { switchOn: () => redis.command('CONFIG SET maxmemory 1'), warning: 'redis is out of memory' },
      'a login that is wanted all at once': { switchOn: () => redis.command('CONFIG SET requirepass CANARY-PW'), warning: 'redis wants a login' }
    }
    for (const [what, { switchOn, warning }] of Object.entries(refusals)) {
      test(`${what}: memory serves, and one warning says why`, async () => {
        const { url } = await proxied()
        const store = await storeAt(url)
        await switchOn()
        for (const proxy of proxies.splice(0)) await proxy.close()
        const fresh = await storeAt()
        for (const each of [store, fresh]) {
          expect(await each.put('r', Buffer.from('v'))).toBe(true)
          expect(String(await each.get('r'))).toBe('v')
        }
        expect(warnings()).toContain(`${warning}; working from memory until it is back`)
        expect(warnings()).toHaveLength(2)
      })
    }

    test('a password: right, it is used; wrong, memory serves; it is never shown', async () => {
      await redis.command('CONFIG SET requirepass CANARY-%PW')
      const at = (password: string): string => `redis://:${encodeURIComponent(password)}@127.0.0.1:${redis.port}/0`
      const right = await storeAt(at('CANARY-%PW'))
      await right.put('r', Buffer.from('v'))
      expect(events).toEqual([])
      expect(String(await (await storeAt(at('CANARY-%PW'))).get('r'))).toBe('v')

      const wrong = await storeAt(at('CANARY-WRONG'))
      expect(await wrong.get('r')).toBeUndefined()
      expect(await wrong.put('r', Buffer.from('w'))).toBe(true)
      expect(warnings()).toHaveLength(1)
      expect(warnings()[0]).toMatch(/^redis (wants a|refuses the) login/)
      expect(JSON.stringify(events)).not.toContain('CANARY')
    })
  })

  test('a location that is none is refused without repeating it', async () => {
    for (const location of ['redis://', 'postgres://u:CANARY@h/1', 'CANARY', 'sqlite:', 'redis://:CANARY@h/notadb']) {
      const refused = await openStore(location, { clock: systemClock(), random: Math.random, report: () => {} }).catch((error: unknown) => error)
      expect(refused).toBeInstanceOf(Error)
      expect(String(refused)).not.toContain('CANARY')
    }
  })

  test('closing leaves no connection behind', async () => {
    const store = await storeAt()
    await store.get('r')
    await store.close()
    // Redis reads the end of a connection a moment after it was made; the one that asks is always there.
    const clients = async (): Promise<number> => (await redis.command('CLIENT LIST')).split('\n').filter((line) => line.includes('addr=')).length
    for (let turn = 0; turn < 100 && (await clients()) > 1; turn++) await new Promise((resolve) => setImmediate(resolve))
    expect(await clients()).toBe(1)
  })
})
