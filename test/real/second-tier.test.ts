import { Readable } from 'node:stream'
import { describe, expect, test } from 'vitest'
import { systemClock } from '../../src/exchange/clock.ts'
import { textOf, type Cached } from '../support/cached.ts'
import { origin } from '../support/origin.ts'
import { requireReal } from '../support/real.ts'
import { FRESH, sharedRedis, until } from '../support/replicas.ts'
import { testSidecar } from '../support/sidecar.ts'

const binary = requireReal('redis-server')

describe.skipIf(binary === undefined)('the second tier of the cache in a real Redis', () => {
  const on = sharedRedis(binary ?? '')

  describe('replicas', () => {
    test('share an answer: the second one neither asks nor waits for anybody, and says where it comes from', async () => {
      const [a, b] = await on.house.two()
      await on.house.keptBy(a, '/v')
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
      const [a, b] = await on.house.two()
      await on.house.keptBy(a, '/v')
      await on.redis.command('CONFIG RESETSTAT')
      const answers = await Promise.all(Array.from({ length: 20 }, () => b.get('/v')))
      expect(new Set(await Promise.all(answers.map(textOf)))).toEqual(new Set(['answer 1']))
      expect(b.calls).toHaveLength(0)
      expect(await on.redis.command('INFO commandstats')).toMatch(/cmdstat_eval:calls=1,/)
    })

    test('that have it themselves, or are told not to use it, do not look', async () => {
      const room = await on.house.replica()
      await on.house.keptBy(room, '/v')
      await on.redis.command('CONFIG RESETSTAT')
      await room.get('/v')
      await room.get('/v', ['Cache-Control', 'no-cache'])
      await room.get('/v', ['Cache-Control', 'no-store'])
      expect(await on.redis.command('INFO commandstats')).not.toMatch(/cmdstat_eval:/)
    })

    test('whose caches do not say secondTier share nothing', async () => {
      const [a, b] = await on.house.two({ secondTier: false })
      await a.get('/v')
      await b.get('/v')
      expect(b.calls).toHaveLength(1)
      expect(await on.house.lines('KEYS attache:answers*')).toEqual([])
    })

    test('share streams that have come to their end', async () => {
      const [a, b] = await on.house.two()
      const stream = Readable.from([Buffer.from('one '), Buffer.from('two')])
      a.origin({ response: { status: 200, fields: FRESH, body: { kind: 'stream', stream, sizeBytes: undefined }, source: 'upstream' } })
      await on.house.keptBy(a, '/v')
      expect(await textOf(await b.get('/v'))).toBe('one two')
      expect(b.calls).toHaveLength(0)
    })

    test('share answers of any size up to maxEntryBytes', async () => {
      const [a, b] = await on.house.two({ maxEntryBytes: 100_000 })
      const bodies = [
        'x'.repeat(100_000),
        Array.from({ length: 9_000 }, (_none, n) => n)
          .join('')
          .slice(0, 30_000),
        ''
      ]
      for (const [n, body] of bodies.entries()) {
        a.origin({ fields: FRESH, body })
        await on.house.keptBy(a, `/${n}`)
        expect(await textOf(await b.get(`/${n}`))).toBe(body)
      }
      expect(b.calls).toHaveLength(0)
      a.origin({ fields: FRESH, body: 'x'.repeat(100_001) })
      await a.get('/large')
      a.origin({ fields: FRESH })
      await on.house.keptBy(a, '/after')
      expect(b.calls).toHaveLength(0)
      await b.get('/large')
      expect(b.calls).toHaveLength(1)
    })

    test('never give one identity what another got', async () => {
      const setup = { identityOf: (credential: string | undefined) => credential ?? '' }
      const [a, b] = await on.house.two(setup)
      await a.get('/v', [], { credential: 'one' })
      await on.house.untilKept(1)
      expect(await textOf(await b.get('/v', [], { credential: 'two' }))).toBe('answer 1')
      await b.get('/v', ['Authorization', 'Bearer x'], { credential: 'one' })
      expect(b.calls).toHaveLength(2)
      expect((await b.get('/v', [], { credential: 'one' })).cacheStatus).toContain('shared')
    })

    test('of another configuration, or with another key, find nothing', async () => {
      const a = await on.house.replica({ scope: 'tenant 1' })
      await on.house.keptBy(a, '/v')
      for (const setup of [{ scope: 'tenant 2' }, { scope: 'tenant 1', sealKey: Buffer.alloc(32, 9) }]) {
        const other = await on.house.replica(setup)
        await other.get('/v')
        expect(other.calls).toHaveLength(1)
      }
      const same = await on.house.replica({ scope: 'tenant 1' })
      await same.get('/v')
      expect(same.calls).toHaveLength(0)
    })

    test('are given the variant they select, whatever it depends on', async () => {
      const [a, b] = await on.house.two()
      for (const room of [a, b]) room.origin((request) => ({ fields: [...FRESH, 'Vary', 'Accept-Language, X-Shape'], body: request.fields.join(' ') }))
      const danish = ['Accept-Language', 'da', 'X-Shape', 'round']
      const english = ['Accept-Language', 'en', 'X-Shape', 'round']
      const square = ['Accept-Language', 'da', 'X-Shape', 'square']
      await textOf(await a.get('/v', danish))
      await textOf(await a.get('/v', english))
      await on.house.untilKept(2)
      expect(await textOf(await b.get('/v', danish))).toBe(danish.join(' '))
      expect(await textOf(await b.get('/v', english))).toBe(english.join(' '))
      expect(b.calls).toHaveLength(0)
      expect(await textOf(await b.get('/v', square))).toBe(square.join(' '))
      expect(b.calls).toHaveLength(1)
    })

    test('count its age on, by the clock of Redis, and validate what is no longer fresh', async () => {
      // a minute is 60 ms here: Redis keeps its own time, which nobody can advance
      const clock = systemClock(1_000)
      const [a, b] = [
        await on.house.replica({ tier: await on.house.tierAt(on.redis.url, clock) }),
        await on.house.replica({ tier: await on.house.tierAt(on.redis.url, clock) })
      ]
      a.origin({ fields: [...FRESH, 'ETag', '"1"'], body: 'whole' })
      await textOf(await a.get('/v'))
      await until('a record', async () => ((await on.house.lines('KEYS attache:x1000:answers:*:*')).length > 0 ? true : undefined))
      await clock.sleep(61_000)
      b.origin({ status: 304, fields: [...FRESH, 'ETag', '"1"'] })
      expect(await textOf(await b.get('/v'))).toBe('whole')
      expect(b.calls.map((call) => call.fields)).toEqual([['If-None-Match', '"1"']])
    })
  })

  describe('a record', () => {
    const FLIP = `local v = redis.call('HGET', KEYS[1], ARGV[1]) local at = tonumber(ARGV[2]) local b = string.byte(v, at) redis.call('HSET', KEYS[1], ARGV[1], string.sub(v, 1, at - 1)..string.char((b + 1) % 256)..string.sub(v, at + 1)) return 1`

    test('with any byte changed is a miss', async () => {
      const a = await on.house.replica()
      const [[key, slot] = ['', '']] = await on.house.keptBy(a, '/v')
      const sizeBytes = Number((await on.redis.command(`HSTRLEN ${key} ${slot}`)).slice(1))
      expect(sizeBytes).toBeGreaterThan(100)
      for (const at of [1, 2, 14, 30, 60, sizeBytes]) {
        expect(await on.redis.command(`EVAL "${FLIP}" 1 ${key} ${slot} ${at}`)).toBe(':1\r\n')
        const b = await on.house.replica()
        b.origin({ body: 'own' })
        expect(await textOf(await b.get('/v'))).toBe('own')
        await on.redis.command(`EVAL "${FLIP.replace('b + 1', 'b + 255')}" 1 ${key} ${slot} ${at}`)
      }
      // it was those bytes, and nothing else
      const b = await on.house.replica()
      await b.get('/v')
      expect(b.calls).toHaveLength(0)
    })

    test('copied to another key is a miss: another target, another identity, another upstream', async () => {
      const [a, b] = await on.house.two()
      const [[fromKey, fromSlot] = ['', '']] = await on.house.keptBy(a, '/secret')
      const all = await on.house.keptBy(a, '/other')
      await a.get('/secret', [], { credential: 'two' })
      const more = await on.house.untilKept(3)
      expect(all).toHaveLength(2)
      for (const [key, slot] of more) {
        if (slot === fromSlot) continue
        await on.redis.command(
          `EVAL "return redis.call('HSET', KEYS[1], ARGV[2], redis.call('HGET', KEYS[2], ARGV[1]))" 2 ${key} ${fromKey} ${fromSlot} ${slot}`
        )
      }
      b.origin({ body: 'own' })
      expect(await textOf(await b.get('/other'))).toBe('own')
      expect(await textOf(await b.get('/secret', [], { credential: 'two' }))).toBe('own')
      expect(await textOf(await b.get('/secret'))).toBe('answer 1')
    })

    test('put back after it was dropped is a miss', async () => {
      const [a, b] = await on.house.two()
      const [[key, slot] = ['', '']] = await on.house.keptBy(a, '/v')
      await on.redis.command(`EVAL "return redis.call('SET', 'aside', redis.call('HGET', KEYS[1], ARGV[1]))" 1 ${key} ${slot}`)
      await a.send('PUT', '/v')
      await on.redis.command(`EVAL "return redis.call('HSET', KEYS[1], ARGV[1], redis.call('GET', 'aside'))" 1 ${key} ${slot}`)
      b.origin({ body: 'own' })
      expect(await textOf(await b.get('/v'))).toBe('own')
    })

    test('says nothing to whoever reads it, is compressed where that pays, and ends', async () => {
      const a = await on.house.replica({ staleIfError: 30_000 })
      const body = 'CANARY-BODY '.repeat(1_000)
      a.origin({ fields: [...FRESH, 'X-Note', 'CANARY-FIELD'], body })
      const [[key, slot] = ['', '']] = await on.house.keptBy(a, '/CANARY-PATH?user=CANARY')
      const everything = [await on.redis.command('KEYS *'), await on.redis.command(`HGETALL ${key}`)].join('')
      expect(everything).not.toContain('CANARY')
      expect(Number((await on.redis.command(`HSTRLEN ${key} ${slot}`)).slice(1))).toBeLessThan(body.length / 10)
      const ttlMs = Number((await on.redis.command(`PTTL ${key}`)).slice(1))
      expect(ttlMs).toBeGreaterThan(85_000)
      expect(ttlMs).toBeLessThanOrEqual(90_000)
    })

    test('of an answer that lives for a year ends within a day', async () => {
      const a = await on.house.replica()
      a.origin({ fields: ['Cache-Control', 'max-age=31536000'] })
      const [[key] = ['']] = await on.house.keptBy(a, '/v')
      expect(Number((await on.redis.command(`PTTL ${key}`)).slice(1))).toBeLessThanOrEqual(86_400_000)
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
        const [a, b] = await on.house.two()
        await on.house.keptBy(a, '/v', '/untouched')
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
      const a = await on.house.replica()
      await on.house.keptBy(a, '/v')
      await a.send('PUT', '/v')
      a.origin({ body: 'new' })
      expect(await textOf(await a.get('/v'))).toBe('new')
    })

    test('an answer that was on its way meanwhile is not shared', async () => {
      const [a, b] = await on.house.two()
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
      await on.house.keptBy(a, '/behind')
      b.origin({ fields: FRESH, body: 'new' })
      expect(await textOf(await b.get('/v'))).toBe('new')
    })

    test('absence that another replica has kept does not count for a thing just announced', async () => {
      const [a, b] = await on.house.two({ negative: { 404: 60_000 } })
      a.origin({ status: 202, fields: ['Location', '/api/items/1'] }, { status: 200 })
      await a.send('POST', '/items')
      b.origin({ status: 404 })
      await on.house.keptBy(b, '/items/1')
      expect((await a.get('/items/1')).status).toBe(200)
    })
  })

  describe('sidecars', () => {
    const config = (url: string): string => `
state: ${on.redis.url}
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
      await on.house.untilKept(1)
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
