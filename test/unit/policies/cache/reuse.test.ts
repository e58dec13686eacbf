import { describe, expect, test } from 'vitest'
import { field } from '../../../../src/http/fields.ts'
import { httpDate } from '../../../../src/http/http-date.ts'
import { cached, textOf } from '../../../support/cached.ts'

describe('RFC 9111 §4: answers from the store', () => {
  test('a hit is the stored answer with its age, marked as one, and no call', async () => {
    const { get, origin, calls, clock, events } = cached()
    origin({ fields: ['Cache-Control', 'max-age=60'], body: 'hello' })
    await get('/a')
    await clock.advance(7900)
    const hit = await get('/a')
    expect(await textOf(hit)).toBe('hello')
    expect(hit).toMatchObject({ status: 200, source: 'cache', cacheStatus: 'hit; ttl=53' })
    expect(field(hit.fields, 'age')).toBe('7')
    expect(calls).toHaveLength(1)
    expect(events.filter((event) => event.kind === 'cache').map((event) => event.result)).toEqual(['miss', 'hit'])
    expect(events.filter((event) => event.kind === 'call-avoided').map((event) => event.reason)).toEqual(['cache'])
  })

  test('the first answer tells why it went upstream and that it was stored', async () => {
    const { get, origin } = cached()
    origin({ fields: ['Cache-Control', 'max-age=60'] })
    expect((await get('/a')).cacheStatus).toBe('fwd=uri-miss; fwd-status=200; stored')
    origin({ fields: ['Cache-Control', 'no-store'] })
    expect((await get('/b')).cacheStatus).toBe('fwd=uri-miss; fwd-status=200')
  })

  test('an answer is fresh while its age is below its lifetime, and not a moment longer', async () => {
    const { get, origin, calls, clock } = cached()
    origin({ fields: ['Cache-Control', 'max-age=60'] })
    await get('/a')
    await clock.advance(59_999)
    await get('/a')
    expect(calls).toHaveLength(1)
    await clock.advance(1)
    await get('/a')
    expect(calls).toHaveLength(2)
  })

  test('the age continues what the provider says in Age', async () => {
    const { get, origin, calls, clock } = cached()
    origin({ fields: ['Cache-Control', 'max-age=60', 'Age', '30'] })
    const first = await get('/a')
    expect(field(first.fields, 'age')).toBe('30')
    await clock.advance(10_000)
    expect(field((await get('/a')).fields, 'age')).toBe('40')
    await clock.advance(20_000)
    await get('/a')
    expect(calls).toHaveLength(2)
  })

  test('the date is never updated', async () => {
    const { get, origin, clock } = cached()
    const date = httpDate(clock.wallNow())
    origin({ fields: ['Expires', httpDate(clock.wallNow() + 60_000), 'Date', date] })
    await get('/a')
    await clock.advance(30_000)
    expect(field((await get('/a')).fields, 'date')).toBe(date)
  })

  test('different queries, paths and spellings are different answers', async () => {
    const { get, origin, calls } = cached()
    origin({ fields: ['Cache-Control', 'max-age=60'] })
    const targets = ['/a?b=c', '/a%3fb=c', '/a/b', '/a%2fb', '/a?a&b', '/a?b&a', '/A', '/a', '/a?', '/%C3%A9', '/e%CC%81']
    for (const target of targets) await get(target)
    expect(calls).toHaveLength(targets.length)
    for (const target of targets) expect((await get(target)).source).toBe('cache')
  })

  test('a hit in demand is made once for all of a second', async () => {
    const { get, origin, clock } = cached()
    origin({ fields: ['Cache-Control', 'max-age=60'] })
    await get('/a')
    await get('/a')
    expect(await get('/a')).toBe(await get('/a'))
    await clock.advance(1000)
    expect(field((await get('/a')).fields, 'age')).toBe('1')
  })
})

describe('RFC 9111 §5.2.1: what the caller asks', () => {
  test('no-cache and Pragma: no-cache without Cache-Control ask the provider', async () => {
    const { get, origin, calls } = cached()
    origin({ fields: ['Cache-Control', 'max-age=60'] })
    await get('/a')
    const reloaded = await get('/a', ['Cache-Control', 'no-cache'])
    expect(reloaded.cacheStatus).toBe('fwd=request; fwd-status=200; stored')
    await get('/a', ['Pragma', 'no-cache'])
    expect(calls).toHaveLength(3)
    await get('/a', ['Pragma', 'no-cache', 'Cache-Control', 'foo'])
    await get('/a', ['Pragma', 'x-other'])
    expect(calls).toHaveLength(3)
  })

  test('no-cache validates where there is a validator', async () => {
    const { get, origin, calls } = cached()
    origin({ fields: ['Cache-Control', 'max-age=60', 'ETag', '"1"'], body: 'one' }, { status: 304, fields: ['ETag', '"1"'] })
    await get('/a')
    expect(await textOf(await get('/a', ['Cache-Control', 'no-cache']))).toBe('one')
    expect(field(calls[1]?.fields ?? [], 'if-none-match')).toBe('"1"')
  })

  test('max-age bounds the age, whatever the lifetime', async () => {
    const { get, origin, calls, clock } = cached()
    origin({ fields: ['Cache-Control', 'max-age=600'] })
    await get('/a')
    await clock.advance(5000)
    await get('/a', ['Cache-Control', 'max-age=5'])
    expect(calls).toHaveLength(1)
    await get('/a', ['Cache-Control', 'max-age=4'])
    expect(calls).toHaveLength(2)
    await clock.advance(1)
    await get('/a', ['Cache-Control', 'max-age=0'])
    expect(calls).toHaveLength(3)
  })

  test('min-fresh wants some lifetime left', async () => {
    const { get, origin, calls, clock } = cached()
    origin({ fields: ['Cache-Control', 'max-age=60'] })
    await get('/a')
    await clock.advance(10_000)
    await get('/a', ['Cache-Control', 'min-fresh=50'])
    expect(calls).toHaveLength(1)
    await get('/a', ['Cache-Control', 'min-fresh=51'])
    expect(calls).toHaveLength(2)
  })

  test('max-stale accepts an answer past its lifetime, up to its value or without bound', async () => {
    const { get, origin, calls, clock } = cached()
    origin({ fields: ['Cache-Control', 'max-age=60'] })
    await get('/a')
    await clock.advance(70_000)
    const stale = await get('/a', ['Cache-Control', 'max-stale=10'])
    expect(stale).toMatchObject({ source: 'stale', cacheStatus: 'hit; ttl=-10; detail=max-stale' })
    expect((await get('/a', ['Cache-Control', 'max-stale'])).source).toBe('stale')
    expect(calls).toHaveLength(1)
    await get('/a', ['Cache-Control', 'max-stale=9'])
    expect(calls).toHaveLength(2)
  })

  test('max-stale does not overrule a provider that forbids stale use', async () => {
    for (const directive of ['must-revalidate', 'no-cache']) {
      const { get, origin, calls, clock } = cached()
      origin({ fields: ['Cache-Control', `max-age=60, ${directive}`, 'ETag', '"1"'] })
      await get('/a')
      await clock.advance(70_000)
      await get('/a', ['Cache-Control', 'max-stale'])
      expect(calls).toHaveLength(2)
    }
  })

  test('only-if-cached is answered from the store or with 504, never upstream', async () => {
    const { get, origin, calls, clock } = cached()
    origin({ fields: ['Cache-Control', 'max-age=60'] })
    await expect(get('/a', ['Cache-Control', 'only-if-cached'])).rejects.toMatchObject({ code: 'only-if-cached', status: 504 })
    await get('/a')
    expect((await get('/a', ['Cache-Control', 'only-if-cached'])).source).toBe('cache')
    await clock.advance(60_000)
    await expect(get('/a', ['Cache-Control', 'only-if-cached'])).rejects.toMatchObject({ code: 'only-if-cached' })
    expect((await get('/a', ['Cache-Control', 'only-if-cached, max-stale'])).source).toBe('stale')
    expect(calls).toHaveLength(1)
  })

  test('directives are passed on in both directions, whether or not the cache obeys them (§5.2)', async () => {
    const { get, origin, calls } = cached()
    origin({ fields: ['Cache-Control', 'max-age=60, no-transform, x-ours="1"'] })
    const answer = await get('/a', ['Cache-Control', 'max-stale=5, no-transform, x-theirs', 'Pragma', 'x'])
    expect(calls[0]?.fields).toEqual(['Cache-Control', 'max-stale=5, no-transform, x-theirs', 'Pragma', 'x'])
    expect(field(answer.fields, 'cache-control')).toBe('max-age=60, no-transform, x-ours="1"')
    expect(field((await get('/a')).fields, 'cache-control')).toBe('max-age=60, no-transform, x-ours="1"')
  })

  test('directives nobody knows change nothing', async () => {
    const { get, origin, calls } = cached()
    origin({ fields: ['Cache-Control', 'max-age=60'] })
    await get('/a', ['Cache-Control', 'nothing-to-see-here', 'Pragma', 'foo'])
    expect((await get('/a', ['Cache-Control', 'nothing-to-see-here'])).source).toBe('cache')
    expect(calls).toHaveLength(1)
  })
})

describe('RFC 9111 §5.2.2: what the provider says', () => {
  test('no-cache is stored, and validated before every use', async () => {
    const { get, origin, calls } = cached()
    origin({ fields: ['Cache-Control', 'no-cache', 'ETag', '"1"'], body: 'one' }, { status: 304, fields: ['ETag', '"1"'] })
    await get('/a')
    for (let round = 2; round <= 4; round++) {
      expect(await textOf(await get('/a'))).toBe('one')
      expect(calls).toHaveLength(round)
    }
  })

  test('no-cache counts more than max-age', async () => {
    const { get, origin, calls } = cached()
    origin({ fields: ['Cache-Control', 'max-age=10000, No-CaChE', 'Expires', httpDate(Date.UTC(2050, 1, 1))] })
    await get('/a')
    await get('/a')
    expect(calls).toHaveLength(2)
  })

  test('s-maxage speaks to shared caches only, and there before max-age and Expires', async () => {
    const fields = ['Cache-Control', 's-maxage=60, max-age=1', 'Expires', '0']
    const shared = cached({ mode: 'shared' })
    shared.origin({ fields })
    await shared.get('/a')
    await shared.clock.advance(59_000)
    await shared.get('/a')
    expect(shared.calls).toHaveLength(1)
    const one = cached()
    one.origin({ fields })
    await one.get('/a')
    await one.clock.advance(2000)
    await one.get('/a')
    expect(one.calls).toHaveLength(2)
  })

  test('immutable: a reload by max-age=0 is not passed on while it is fresh, a no-cache is (RFC 8246 §2)', async () => {
    const { get, origin, calls, clock } = cached()
    origin({ fields: ['Cache-Control', 'max-age=60, immutable', 'ETag', '"1"'] }, { status: 304 })
    await get('/a')
    await clock.advance(1000)
    expect((await get('/a', ['Cache-Control', 'max-age=0'])).source).toBe('cache')
    expect(calls).toHaveLength(1)
    await get('/a', ['Cache-Control', 'no-cache'])
    expect(calls).toHaveLength(2)
    await clock.advance(60_000)
    await get('/a')
    expect(calls).toHaveLength(3)
  })

  test('targeted fields count instead of Cache-Control and Expires (RFC 9213 §2.2)', async () => {
    const targeted = cached()
    targeted.origin({ fields: ['Cache-Control', 'no-store', 'Attache-Cache-Control', 'max-age=60', 'Expires', '0'] })
    await targeted.get('/a')
    expect((await targeted.get('/a')).source).toBe('cache')
    const shared = cached({ mode: 'shared' })
    shared.origin({ fields: ['Cache-Control', 'max-age=600', 'CDN-Cache-Control', 'private'] })
    await shared.get('/a')
    await shared.get('/a')
    expect(shared.calls).toHaveLength(2)
  })

  test('a targeted field for others, or one that cannot be read, counts for nothing (RFC 9213 §2.1)', async () => {
    const one = cached()
    one.origin({ fields: ['Cache-Control', 'no-store', 'CDN-Cache-Control', 'max-age=60'] })
    await one.get('/a')
    await one.get('/a')
    expect(one.calls).toHaveLength(2)
    for (const broken of ['max-age=60, &&&', 'max-age="60"', 'max-age =60', '']) {
      const { get, origin, calls } = cached()
      origin({ fields: ['Cache-Control', 'no-store', 'Attache-Cache-Control', broken] })
      await get('/a')
      await get('/a')
      expect(calls).toHaveLength(2)
    }
  })
})

describe('RFC 9111 §4.2: local lifetimes', () => {
  test('a rule gives a lifetime where the provider gives none, and says so', async () => {
    const { get, origin, calls, clock } = cached({ rules: [{ match: 'GET /articles/**', ttl: 600_000 }] })
    origin({})
    await get('/articles/1')
    await clock.advance(599_000)
    expect((await get('/articles/1')).cacheStatus).toBe('hit; ttl=1; detail=local-rule')
    await get('/orders/1')
    await get('/orders/1')
    expect(calls).toHaveLength(3)
  })

  test.each(['max-age=1', 'no-store', 'no-cache', 'max-age=0'])('the provider’s own %s counts more than a rule', async (directive) => {
    const { get, origin, calls, clock } = cached({ rules: [{ match: '/**', ttl: 600_000 }] })
    origin({ fields: ['Cache-Control', directive] })
    await get('/a')
    await clock.advance(1000)
    await get('/a')
    expect(calls).toHaveLength(2)
  })

  test('an Expires that cannot be read is a provider’s word too: stale at once', async () => {
    const { get, origin, calls } = cached({ rules: [{ match: '/**', ttl: 600_000 }], heuristic: true })
    origin({ fields: ['Expires', '0', 'Last-Modified', 'Mon, 01 Jan 2024 00:00:00 GMT'] })
    await get('/a')
    await get('/a')
    expect(calls).toHaveLength(2)
  })

  test('a rule is no licence for other statuses', async () => {
    const { get, origin, calls } = cached({ rules: [{ match: '/**', ttl: 600_000 }] })
    origin({ status: 404 })
    await get('/a')
    await get('/a')
    expect(calls).toHaveLength(2)
  })

  test('heuristic, where switched on, is a tenth of the time since the last change, and says so (§4.2.2)', async () => {
    const { get, origin, calls, clock } = cached({ heuristic: true })
    origin({ fields: ['Last-Modified', httpDate(clock.wallNow() - 1_000_000)] })
    await get('/a')
    await clock.advance(99_000)
    expect((await get('/a')).cacheStatus).toBe('hit; ttl=1; detail=local-heuristic')
    await clock.advance(1000)
    await get('/a')
    expect(calls).toHaveLength(2)
  })

  test.each([
    [200, true, ''],
    [203, true, ''],
    [204, true, ''],
    [404, true, ''],
    [405, true, ''],
    [410, true, ''],
    [414, true, ''],
    [501, true, ''],
    [201, false, ''],
    [202, false, ''],
    [502, false, ''],
    [503, false, ''],
    [504, false, ''],
    [599, false, ''],
    [599, true, 'public']
  ])('heuristic freshness for status %i: %s (%s)', async (status, isUsed, directive) => {
    const { get, origin, calls, clock } = cached({ heuristic: true, mode: 'shared' })
    origin({ status, fields: ['Last-Modified', httpDate(clock.wallNow() - 86_400_000), ...(directive === '' ? [] : ['Cache-Control', directive])] })
    await get('/a')
    await get('/a')
    expect(calls).toHaveLength(isUsed ? 1 : 2)
  })
})

test('an answer to be asked about every time goes upstream for what it says, not for what its caller says (RFC 9211 §2.2)', async () => {
  const room = cached()
  room.origin({ fields: ['Cache-Control', 'no-cache, max-age=60', 'ETag', '"1"'] }, { status: 304 })
  await room.get('/a')
  expect((await room.get('/a')).cacheStatus).toMatch(/^fwd=stale;/)
})

test('a caller that goes past the cache is counted', async () => {
  const room = cached()
  await room.get('/a', ['Cache-Control', 'no-store'])
  expect(room.events.flatMap((event) => (event.kind === 'cache' ? event.result : []))).toEqual(['bypass'])
})

test('a lifetime set for GET is one for HEAD', async () => {
  const room = cached({ rules: [{ match: 'GET /a', ttl: 60_000 }] })
  await room.send('HEAD', '/a')
  expect((await room.send('HEAD', '/a')).source).toBe('cache')
})
