import { Readable } from 'node:stream'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { systemClock } from '../../src/exchange/clock.ts'
import type { Event } from '../../src/exchange/events.ts'
import { openSecondTier } from '../../src/state/open-store.ts'
import type { Look, SecondTier } from '../../src/state/second-tier.ts'
import { cached, textOf, type Cached, type CachedSetup } from '../support/cached.ts'
import { origin } from '../support/origin.ts'
import { requireReal } from '../support/real.ts'
import { realRedis, type RealRedis } from '../support/redis.ts'
import { testSidecar } from '../support/sidecar.ts'
import { slowProxy } from '../support/slow-proxy.ts'

// What other work on the machine may add to the promised 50 ms.
const BUSY_MACHINE_MS = 100
const FRESH = ['Cache-Control', 'max-age=60']
const PLACE = { scope: 'scope', shelf: 'shelf', slot: 'slot' }

const binary = requireReal('redis-server')

describe.skipIf(binary === undefined)('the second tier of the cache in a real Redis', () => {
  let redis: RealRedis
  let events: Event[]
  const opened: SecondTier[] = []

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
    redis.thaw()
    for (const tier of opened.splice(0)) await tier.close()
  })

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
  async function replicas(setup: CachedSetup = {}): Promise<[Cached, Cached]> {
    return [await replica(setup), await replica(setup)]
  }

  /** Asks until it is so; fails after 5 s. */
  async function until<T>(what: string, found: () => Promise<T | undefined>): Promise<T> {
    const giveUpAt = performance.now() + 5_000
    while (performance.now() < giveUpAt) {
      const value = await found()
      if (value !== undefined) return value
      await new Promise((resolve) => setImmediate(resolve))
    }
    throw new Error(`${what}: not within 5 s`)
  }
  const lines = async (command: string): Promise<string[]> =>
    (await redis.command(command)).split('\r\n').filter((line) => line !== '' && !/^[*$]\d/.test(line))
  /** Every record there is, as key and slot. */
  async function records(): Promise<[key: string, slot: string][]> {
    const shelves = await lines('KEYS attache:answers:*:*')
    const slots = await Promise.all(shelves.map(async (key) => (await lines(`HKEYS ${key}`)).map((slot): [string, string] => [key, slot])))
    return slots.flat().filter(([, slot]) => slot !== 'g')
  }
  const untilKept = (count: number): Promise<[string, string][]> =>
    until(`${count} records`, async () => {
      const found = await records()
      return found.length === count ? found : undefined
    })
  async function keptBy(room: Cached, ...targets: string[]): Promise<[string, string][]> {
    const before = await records()
    for (const target of targets) await textOf(await room.get(target))
    return untilKept(before.length + targets.length)
  }
  async function timed(work: () => Promise<unknown>): Promise<number> {
    const before = performance.now()
    await work()
    return performance.now() - before
  }

  describe('replicas', () => {
    test('share an answer: the second one neither asks nor waits for anybody, and says where it comes from', async () => {
      const [a, b] = await replicas()
      await keptBy(a, '/v')
      const shared = await b.get('/v')
      expect(shared).toMatchObject({ status: 200, source: 'cache' })
      expect(shared.cacheStatus).toMatch(/^hit; ttl=(?:60|59|58); detail=shared$/)
      expect(await textOf(shared)).toBe('answer 1')
      expect(b.calls).toHaveLength(0)
      expect(b.events.filter((event) => event.kind === 'cache').map((event) => event.result)).toEqual(['hit'])
      // from now on it is the replica's own
      expect((await b.get('/v')).cacheStatus).toMatch(/^hit; ttl=\d+$/)
    })

    test('look once for all who ask together', async () => {
      const [a, b] = await replicas()
      await keptBy(a, '/v')
      await redis.command('CONFIG RESETSTAT')
      const answers = await Promise.all(Array.from({ length: 20 }, () => b.get('/v')))
      expect(new Set(await Promise.all(answers.map(textOf)))).toEqual(new Set(['answer 1']))
      expect(b.calls).toHaveLength(0)
      expect(await redis.command('INFO commandstats')).toMatch(/cmdstat_eval:calls=1,/)
    })

    test('that have it themselves, or are told not to use it, do not look', async () => {
      const room = await replica()
      await keptBy(room, '/v')
      await redis.command('CONFIG RESETSTAT')
      await room.get('/v')
      await room.get('/v', ['Cache-Control', 'no-cache'])
      await room.get('/v', ['Cache-Control', 'no-store'])
      expect(await redis.command('INFO commandstats')).not.toMatch(/cmdstat_eval:/)
    })

    test('whose caches do not say secondTier share nothing', async () => {
      const [a, b] = await replicas({ secondTier: false })
      await a.get('/v')
      await b.get('/v')
      expect(b.calls).toHaveLength(1)
      expect(await lines('KEYS attache:answers*')).toEqual([])
    })

    test('share streams that have come to their end', async () => {
      const [a, b] = await replicas()
      const stream = Readable.from([Buffer.from('one '), Buffer.from('two')])
      a.origin({ response: { status: 200, fields: FRESH, body: { kind: 'stream', stream, sizeBytes: undefined }, source: 'upstream' } })
      await keptBy(a, '/v')
      expect(await textOf(await b.get('/v'))).toBe('one two')
      expect(b.calls).toHaveLength(0)
    })

    test('share answers of any size up to maxEntryBytes', async () => {
      const [a, b] = await replicas({ maxEntryBytes: 100_000 })
      const bodies = [
        'x'.repeat(100_000),
        Array.from({ length: 9_000 }, (_none, n) => n)
          .join('')
          .slice(0, 30_000),
        ''
      ]
      for (const [n, body] of bodies.entries()) {
        a.origin({ fields: FRESH, body })
        await keptBy(a, `/${n}`)
        expect(await textOf(await b.get(`/${n}`))).toBe(body)
      }
      expect(b.calls).toHaveLength(0)
      a.origin({ fields: FRESH, body: 'x'.repeat(100_001) })
      await a.get('/large')
      a.origin({ fields: FRESH })
      await keptBy(a, '/after')
      expect(b.calls).toHaveLength(0)
      await b.get('/large')
      expect(b.calls).toHaveLength(1)
    })

    test('never give one identity what another got', async () => {
      const setup = { identityOf: (credential: string | undefined) => credential ?? '' }
      const [a, b] = await replicas(setup)
      await a.get('/v', [], { credential: 'one' })
      await untilKept(1)
      expect(await textOf(await b.get('/v', [], { credential: 'two' }))).toBe('answer 1')
      await b.get('/v', ['Authorization', 'Bearer x'], { credential: 'one' })
      expect(b.calls).toHaveLength(2)
      expect((await b.get('/v', [], { credential: 'one' })).cacheStatus).toContain('shared')
    })

    test('of another configuration, or with another key, find nothing', async () => {
      const a = await replica({ scope: 'tenant 1' })
      await keptBy(a, '/v')
      for (const setup of [{ scope: 'tenant 2' }, { scope: 'tenant 1', sealKey: Buffer.alloc(32, 9) }]) {
        const other = await replica(setup)
        await other.get('/v')
        expect(other.calls).toHaveLength(1)
      }
      const same = await replica({ scope: 'tenant 1' })
      await same.get('/v')
      expect(same.calls).toHaveLength(0)
    })

    test('are given the variant they select, whatever it depends on', async () => {
      const [a, b] = await replicas()
      for (const room of [a, b]) room.origin((request) => ({ fields: [...FRESH, 'Vary', 'Accept-Language, X-Shape'], body: request.fields.join(' ') }))
      const danish = ['Accept-Language', 'da', 'X-Shape', 'round']
      const english = ['Accept-Language', 'en', 'X-Shape', 'round']
      const square = ['Accept-Language', 'da', 'X-Shape', 'square']
      await textOf(await a.get('/v', danish))
      await textOf(await a.get('/v', english))
      await untilKept(2)
      expect(await textOf(await b.get('/v', danish))).toBe(danish.join(' '))
      expect(await textOf(await b.get('/v', english))).toBe(english.join(' '))
      expect(b.calls).toHaveLength(0)
      expect(await textOf(await b.get('/v', square))).toBe(square.join(' '))
      expect(b.calls).toHaveLength(1)
    })

    test('count its age on, by the clock of Redis, and validate what is no longer fresh', async () => {
      // a minute is 60 ms here: Redis keeps its own time, which nobody can advance
      const clock = systemClock(1_000)
      const [a, b] = [await replica({ tier: await tierAt(redis.url, clock) }), await replica({ tier: await tierAt(redis.url, clock) })]
      a.origin({ fields: [...FRESH, 'ETag', '"1"'], body: 'whole' })
      await textOf(await a.get('/v'))
      await until('a record', async () => ((await lines('KEYS attache:x1000:answers:*:*')).length > 0 ? true : undefined))
      await clock.sleep(61_000)
      b.origin({ status: 304, fields: [...FRESH, 'ETag', '"1"'] })
      expect(await textOf(await b.get('/v'))).toBe('whole')
      expect(b.calls.map((call) => call.fields)).toEqual([['If-None-Match', '"1"']])
    })
  })

  describe('a record', () => {
    const FLIP = `local v = redis.call('HGET', KEYS[1], ARGV[1]) local at = tonumber(ARGV[2]) local b = string.byte(v, at) redis.call('HSET', KEYS[1], ARGV[1], string.sub(v, 1, at - 1)..string.char((b + 1) % 256)..string.sub(v, at + 1)) return 1`

    test('with any byte changed is a miss', async () => {
      const a = await replica()
      const [[key, slot] = ['', '']] = await keptBy(a, '/v')
      const sizeBytes = Number((await redis.command(`HSTRLEN ${key} ${slot}`)).slice(1))
      expect(sizeBytes).toBeGreaterThan(100)
      for (const at of [1, 2, 14, 30, 60, sizeBytes]) {
        expect(await redis.command(`EVAL "${FLIP}" 1 ${key} ${slot} ${at}`)).toBe(':1\r\n')
        const b = await replica()
        b.origin({ body: 'own' })
        expect(await textOf(await b.get('/v'))).toBe('own')
        await redis.command(`EVAL "${FLIP.replace('b + 1', 'b + 255')}" 1 ${key} ${slot} ${at}`)
      }
      // it was those bytes, and nothing else
      const b = await replica()
      await b.get('/v')
      expect(b.calls).toHaveLength(0)
    })

    test('copied to another key is a miss: another target, another identity, another upstream', async () => {
      const [a, b] = await replicas()
      const [[fromKey, fromSlot] = ['', '']] = await keptBy(a, '/secret')
      const all = await keptBy(a, '/other')
      await a.get('/secret', [], { credential: 'two' })
      const more = await untilKept(3)
      expect(all).toHaveLength(2)
      for (const [key, slot] of more) {
        if (slot === fromSlot) continue
        await redis.command(`EVAL "return redis.call('HSET', KEYS[1], ARGV[2], redis.call('HGET', KEYS[2], ARGV[1]))" 2 ${key} ${fromKey} ${fromSlot} ${slot}`)
      }
      b.origin({ body: 'own' })
      expect(await textOf(await b.get('/other'))).toBe('own')
      expect(await textOf(await b.get('/secret', [], { credential: 'two' }))).toBe('own')
      expect(await textOf(await b.get('/secret'))).toBe('answer 1')
    })

    test('put back after it was dropped is a miss', async () => {
      const [a, b] = await replicas()
      const [[key, slot] = ['', '']] = await keptBy(a, '/v')
      await redis.command(`EVAL "return redis.call('SET', 'aside', redis.call('HGET', KEYS[1], ARGV[1]))" 1 ${key} ${slot}`)
      await a.send('PUT', '/v')
      await redis.command(`EVAL "return redis.call('HSET', KEYS[1], ARGV[1], redis.call('GET', 'aside'))" 1 ${key} ${slot}`)
      b.origin({ body: 'own' })
      expect(await textOf(await b.get('/v'))).toBe('own')
    })

    test('says nothing to whoever reads it, is compressed where that pays, and ends', async () => {
      const a = await replica({ staleIfError: 30_000 })
      const body = 'CANARY-BODY '.repeat(1_000)
      a.origin({ fields: [...FRESH, 'X-Note', 'CANARY-FIELD'], body })
      const [[key, slot] = ['', '']] = await keptBy(a, '/CANARY-PATH?user=CANARY')
      const everything = [await redis.command('KEYS *'), await redis.command(`HGETALL ${key}`)].join('')
      expect(everything).not.toContain('CANARY')
      expect(Number((await redis.command(`HSTRLEN ${key} ${slot}`)).slice(1))).toBeLessThan(body.length / 10)
      const ttlMs = Number((await redis.command(`PTTL ${key}`)).slice(1))
      expect(ttlMs).toBeGreaterThan(85_000)
      expect(ttlMs).toBeLessThanOrEqual(90_000)
    })

    test('of an answer that lives for a year ends within a day', async () => {
      const a = await replica()
      a.origin({ fields: ['Cache-Control', 'max-age=31536000'] })
      const [[key] = ['']] = await keptBy(a, '/v')
      expect(Number((await redis.command(`PTTL ${key}`)).slice(1))).toBeLessThanOrEqual(86_400_000)
    })
  })

  describe('what has changed is gone for every replica', () => {
    const changes: Record<string, (room: Cached) => Promise<unknown>> = {
      'by an unsafe method': (room) => room.send('PUT', '/v'),
      'by a Location in the answer to another write': (room) => {
        room.origin({ status: 201, fields: ['Location', '/api/v'] })
        return room.send('POST', '/')
      },
      'by a write that failed after it was sent': (room) => {
        room.origin(new Error('gone'))
        return room.send('DELETE', '/v').catch((error: unknown) => error)
      },
      'by a purge': (room) => room.cache.purge('/v'),
      'by 401': (room) => {
        room.origin({ status: 401 })
        return room.get('/v', ['Cache-Control', 'no-cache'])
      },
      'by 403': (room) => {
        room.origin({ status: 403 })
        return room.get('/v', ['Cache-Control', 'no-cache'])
      },
      'by an answer that may not be kept': (room) => {
        room.origin({ fields: ['Cache-Control', 'no-store'] })
        return room.get('/v', ['Cache-Control', 'no-cache'])
      }
    }
    for (const [how, change] of Object.entries(changes)) {
      test(`${how}`, async () => {
        const [a, b] = await replicas()
        await keptBy(a, '/v', '/untouched')
        await change(a)
        // the drop is on its way ahead of whatever is asked for behind it
        a.origin({ fields: FRESH })
        await a.get('/behind')
        b.origin({ body: 'new' })
        expect(await textOf(await b.get('/v'))).toBe('new')
        await b.get('/untouched')
        expect(b.calls).toHaveLength(how === 'by a purge' ? 2 : 1)
      })
    }

    test('and the one that changed it does not find it there either', async () => {
      const a = await replica()
      await keptBy(a, '/v')
      await a.send('PUT', '/v')
      a.origin({ body: 'new' })
      expect(await textOf(await a.get('/v'))).toBe('new')
    })

    test('an answer that was on its way meanwhile is not shared', async () => {
      const [a, b] = await replicas()
      const slow = Promise.withResolvers<{ fields: string[]; body: string }>()
      const begun = Promise.withResolvers<void>()
      a.origin(() => {
        begun.resolve()
        return slow.promise
      })
      const early = a.get('/v')
      await begun.promise
      await b.send('PUT', '/v')
      slow.resolve({ fields: FRESH, body: 'old' })
      expect(await textOf(await early)).toBe('old')
      a.origin({ fields: FRESH })
      await keptBy(a, '/behind')
      b.origin({ fields: FRESH, body: 'new' })
      expect(await textOf(await b.get('/v'))).toBe('new')
    })

    test('absence that another replica has kept does not count for a thing just announced', async () => {
      const [a, b] = await replicas({ negative: { 404: 60_000 } })
      a.origin({ status: 202, fields: ['Location', '/api/items/1'] }, { status: 200 })
      await a.send('POST', '/items')
      b.origin({ status: 404 })
      await keptBy(b, '/items/1')
      expect((await a.get('/items/1')).status).toBe(200)
    })
  })

  describe('when Redis is not there', () => {
    const known = (look: Look | undefined): string | undefined => look?.value?.toString()

    async function keep(tier: SecondTier, value = 'v'): Promise<Look> {
      const look = await back(tier)
      await tier.put(PLACE, look, Buffer.from(value), 60_000)
      return look
    }
    const back = (tier: SecondTier): Promise<Look> => until('the tier is back', () => tier.look(PLACE))

    test('stopped in its tracks: 50 ms once, nothing after that; then it serves again', async () => {
      const tier = await tierAt()
      await keep(tier)
      redis.freeze()
      expect(await timed(async () => expect(await tier.look(PLACE)).toBeUndefined())).toBeLessThan(50 + BUSY_MACHINE_MS)
      const later = await Promise.all(Array.from({ length: 200 }, () => timed(() => tier.look(PLACE))))
      expect(Math.max(...later)).toBeLessThan(BUSY_MACHINE_MS)
      redis.thaw()
      expect(known(await back(tier))).toBe('v')
      expect(events.map((event) => (event.kind === 'warning' ? event.message : event.kind))).toEqual([
        'redis gives no answer in time; answers are not shared until it is back'
      ])
    })

    test('what was dropped meanwhile is not there when it is back', async () => {
      for (const drop of [(tier: SecondTier) => tier.drop('scope', 'shelf'), (tier: SecondTier) => tier.dropAll('scope')]) {
        const tier = await tierAt()
        const kept = await keep(tier)
        redis.freeze()
        const took = await timed(() => drop(tier))
        expect(took).toBeLessThan(50 + BUSY_MACHINE_MS)
        await drop(tier)
        redis.thaw()
        const before = await back(tier)
        // the bytes may still lie there, but are bound to a generation that is over
        expect(before.generation).not.toBe(kept.generation)
        const other = await tierAt()
        expect((await other.look(PLACE))?.generation).toBe(before.generation)
        await keep(tier, 'w')
        expect(known(await other.look(PLACE))).toBe('w')
      }
    })

    test('killed, callers miss and nothing else; started again, it is used again', async () => {
      const [a, b] = await replicas()
      await keptBy(a, '/v')
      await redis.kill()
      expect(await textOf(await b.get('/v'))).toBe('answer 1')
      expect((await a.get('/v')).cacheStatus).toMatch(/^hit/)
      expect((await b.send('PUT', '/v')).status).toBe(200)
      await redis.start()
      const tier = await tierAt()
      await keep(tier)
      expect(known(await tier.look(PLACE))).toBe('v')
    })

    test('absent at start: opens all the same', async () => {
      await redis.kill()
      const tier = await tierAt()
      expect(await tier.look(PLACE)).toBeUndefined()
      await tier.drop('scope', 'shelf')
      await redis.start()
      await back(tier)
    })

    test.each(['HTTP/1.1 400 Bad Request\r\n\r\n', ':1\r\n', '*5\r\n:1\r\n:1\r\n:1\r\n:1\r\n:1\r\n', '-ERR no\r\n'])(
      'answers %j are no answers',
      async (nonsense) => {
        const proxy = await slowProxy(redis.port)
        const tier = await tierAt(`redis://127.0.0.1:${proxy.port}/0`)
        await keep(tier)
        proxy.answerWith(nonsense)
        expect(await timed(async () => expect(await tier.look(PLACE)).toBeUndefined())).toBeLessThan(50 + BUSY_MACHINE_MS)
        await tier.close()
        await proxy.close()
      }
    )

    test('a shelf holds a bounded number of records, and none of another scope', async () => {
      const tier = await tierAt()
      for (let n = 0; n < 200; n++) {
        const place = { ...PLACE, slot: `slot${n}` }
        const look = await until('the tier is there', () => tier.look(place))
        await tier.put(place, look, Buffer.from('v'), 60_000)
      }
      expect((await records()).length).toBeLessThanOrEqual(65)
      expect(known(await tier.look({ ...PLACE, slot: 'slot199' }))).toBe('v')
      expect(known(await tier.look({ ...PLACE, scope: 'other', slot: 'slot199' }))).toBeUndefined()
    })
  })

  test('only a Redis is one', async () => {
    const tools = { clock: systemClock(), random: Math.random, report: () => undefined }
    expect(await openSecondTier('memory:', tools)).toBeUndefined()
    expect(await openSecondTier('sqlite:/nowhere/state.db', tools)).toBeUndefined()
  })

  describe('sidecars', () => {
    const config = (url: string): string => `
state: ${redis.url}
credentials: { key: { grant: static, header: X-Api-Key, value: "\${KEY}" } }
upstreams:
  up:
    baseUrl: ${url}
    credential: key
    cache: { secondTier: true }
`

    test('share an answer, find it after a restart, and drop it together', async () => {
      const provider = await origin((received, response) => {
        response.writeHead(200, { 'Cache-Control': 'max-age=600' }).end(`${received.method} ${received.url}`)
      })
      const environment = { KEY: 'CANARY-KEY' }
      const a = await testSidecar(config(provider.url), { environment })
      const b = await testSidecar(config(provider.url), { environment })
      const other = await testSidecar(config(provider.url), { environment: { KEY: 'another' } })
      const get = (sidecar: { dataUrl: string }): Promise<Response> => fetch(`${sidecar.dataUrl}/up/v`)
      expect(await (await get(a)).text()).toBe('GET /v')
      await untilKept(1)
      const shared = await get(b)
      expect(await shared.text()).toBe('GET /v')
      expect(shared.headers.get('cache-status')).toMatch(/hit; ttl=\d+; detail=shared/)
      expect(shared.headers.get('attache-attempts')).toBe('0')
      expect(provider.received).toHaveLength(1)
      // another credential is another identity, and has another key
      await get(other)
      expect(provider.received).toHaveLength(2)
      await other.stop()

      await b.stop()
      const again = await testSidecar(config(provider.url), { environment })
      expect((await get(again)).headers.get('cache-status')).toContain('detail=shared')
      await fetch(`${a.adminUrl}/api/cache?upstream=up`, { method: 'DELETE' })
      const late = await testSidecar(config(provider.url), { environment })
      await get(late)
      expect(provider.received).toHaveLength(3)
      for (const sidecar of [a, again, late]) await sidecar.stop()
      await provider.close()
    })
  })
})
