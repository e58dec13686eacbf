import { describe, expect, test } from 'vitest'
import type { Request } from '../../../../src/exchange/message.ts'
import { Problem } from '../../../../src/exchange/problem.ts'
import { cached, textOf, type Cached } from '../../../support/cached.ts'

const FRESH = { fields: ['Cache-Control', 'max-age=600'] }

async function holding(...targets: string[]): Promise<Cached> {
  const room = cached()
  room.origin(FRESH)
  for (const target of targets) await room.get(target)
  return room
}

async function isHeld(room: Cached, target: string): Promise<boolean> {
  room.origin(FRESH)
  return (await room.get(target)).source === 'cache'
}

describe('RFC 9111 §4: methods are written through', () => {
  test.each(['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])('%s always reaches the provider', async (method) => {
    const room = await holding('/a')
    expect((await room.send(method, '/a')).cacheStatus).toBe('fwd=method; fwd-status=200')
    expect(room.calls).toHaveLength(2)
  })
})

describe('RFC 9111 §4.4: invalidation', () => {
  test.each(['POST', 'PUT', 'PATCH', 'DELETE', 'M-SEARCH', 'UNKNOWN'])('a successful %s invalidates its target', async (method) => {
    const room = await holding('/a', '/b')
    await room.send(method, '/a')
    expect(await isHeld(room, '/a')).toBe(false)
    expect(await isHeld(room, '/b')).toBe(true)
  })

  test.each(['OPTIONS', 'PROPFIND', 'SEARCH', 'QUERY', 'TRACE'])('a safe %s invalidates nothing', async (method) => {
    const room = await holding('/a')
    await room.send(method, '/a')
    expect(await isHeld(room, '/a')).toBe(true)
  })

  test.each([200, 201, 202, 204, 301, 303, 307])('status %i counts as success', async (status) => {
    const room = await holding('/a')
    room.origin({ status })
    await room.send('PUT', '/a')
    expect(await isHeld(room, '/a')).toBe(false)
  })

  test.each([400, 404, 409, 429, 500, 503])('status %i does not invalidate', async (status) => {
    const room = await holding('/a')
    room.origin({ status })
    await room.send('PUT', '/a')
    expect(await isHeld(room, '/a')).toBe(true)
  })

  test('a write whose outcome is unknown invalidates: it may have been carried out', async () => {
    const room = await holding('/a')
    room.origin(new Problem('outcome-unknown'))
    await expect(room.send('POST', '/a')).rejects.toMatchObject({ code: 'outcome-unknown' })
    expect(await isHeld(room, '/a')).toBe(false)
  })

  test.each([
    ['/api/b', 'an absolute path'],
    ['b', 'a relative one'],
    ['http://origin.test/api/b', 'a URL of the provider'],
    ['//origin.test/api/b#part', 'a URL without scheme, with a fragment']
  ])('Location and Content-Location are invalidated too: %s (%s)', async (reference) => {
    for (const status of [200, 201, 303]) {
      for (const name of ['Location', 'Content-Location']) {
        const room = await holding('/a', '/b')
        room.origin({ status, fields: [name, reference] })
        await room.send('POST', '/a')
        expect(await isHeld(room, '/b')).toBe(false)
      }
    }
  })

  test.each(['http://evil.test/api/b', 'https://origin.test/api/b', 'http://origin.test:8080/api/b', '/other/b', 'http://[', ''])(
    'a reference to another origin or outside the base invalidates nothing: %s',
    async (reference) => {
      const room = await holding('/a', '/b')
      room.origin({ status: 201, fields: ['Location', reference, 'Content-Location', reference] })
      await room.send('POST', '/c')
      expect(await isHeld(room, '/b')).toBe(true)
    }
  )

  test('every variant and identity of the target is invalidated', async () => {
    const room = cached()
    room.origin({ fields: ['Cache-Control', 'max-age=600', 'Vary', 'Foo'] })
    const who = [
      { fields: ['Foo', '1'], credential: 'one' },
      { fields: ['Foo', '2'], credential: 'one' },
      { fields: ['Foo', '1'], credential: 'two' }
    ]
    for (const { fields, credential } of who) await room.get('/a', fields, { credential })
    await room.send('DELETE', '/a', [], { credential: 'one' })
    expect(room.cache.entries).toBe(0)
    for (const { fields, credential } of who) expect((await room.get('/a', fields, { credential })).source).toBe('upstream')
  })

  test('an answer that was on its way while its target was written is not stored', async () => {
    const room = cached()
    const slow = Promise.withResolvers<{ fields: string[] }>()
    room.origin(() => slow.promise, {}, FRESH)
    const early = room.get('/a')
    await room.send('PUT', '/a')
    slow.resolve(FRESH)
    expect(await textOf(await early)).not.toBe('')
    expect((await room.get('/a')).source).toBe('upstream')
    expect((await room.get('/a')).source).toBe('cache')
  })

  test('nobody joins a flight that began before the write', async () => {
    const room = cached()
    const slow = Promise.withResolvers<{ fields: string[]; body: string }>()
    room.origin(() => slow.promise, {}, { ...FRESH, body: 'new' })
    const early = room.get('/a')
    await room.send('PUT', '/a')
    expect(await textOf(await room.get('/a'))).toBe('new')
    slow.resolve({ ...FRESH, body: 'old' })
    expect(await textOf(await early)).toBe('old')
    expect(await textOf(await room.get('/a'))).toBe('new')
  })

  test('purging by prefix drops what lies under it, and what was on its way there', async () => {
    const room = await holding('/a/1', '/a/2', '/b/1')
    const slow = Promise.withResolvers<{ fields: string[] }>()
    room.origin(() => slow.promise)
    const early = room.get('/a/3')
    expect(await room.cache.purge('/a/')).toBe(2)
    slow.resolve(FRESH)
    await early
    expect(room.cache.entries).toBe(1)
    expect(await isHeld(room, '/b/1')).toBe(true)
    expect(await isHeld(room, '/a/3')).toBe(false)
    expect(await room.cache.purge('/')).toBe(2)
    expect([room.cache.entries, room.cache.bytes]).toEqual([0, 0])
  })
})

describe('negative answers (agreement)', () => {
  const NEGATIVE = { negative: { 404: 60_000, 204: 30_000 } }

  test('"no such thing" is remembered as long as agreed, and says so', async () => {
    const room = cached(NEGATIVE)
    room.origin({ status: 404 })
    await room.get('/a')
    await room.clock.advance(59_000)
    expect(await room.get('/a')).toMatchObject({ status: 404, cacheStatus: 'hit; ttl=1; detail=local-negative' })
    await room.clock.advance(1000)
    await room.get('/a')
    expect(room.calls).toHaveLength(2)
  })

  test('204 has its own time; a status that is not listed follows the ordinary rules', async () => {
    const room = cached(NEGATIVE)
    room.origin({ status: 204 })
    await room.get('/a')
    await room.clock.advance(29_000)
    expect((await room.get('/a')).status).toBe(204)
    expect(room.calls).toHaveLength(1)
    room.origin({ status: 410 })
    await room.get('/b')
    await room.get('/b')
    expect(room.calls).toHaveLength(3)
    room.origin({ status: 410, fields: ['Cache-Control', 'max-age=60'] })
    await room.get('/c')
    await room.get('/c')
    expect(room.calls).toHaveLength(4)
  })

  test('0s switches a status off: it is never stored, whatever the provider says', async () => {
    const room = cached({ negative: { 404: 0 } })
    room.origin({ status: 404, fields: ['Cache-Control', 'max-age=60', 'ETag', '"1"'] })
    await room.get('/a')
    await room.get('/a')
    expect(room.calls).toHaveLength(2)
    expect(room.cache.entries).toBe(0)
  })

  test('the provider’s own lifetime, no-store and no-cache count more', async () => {
    for (const directive of ['max-age=1', 'no-store', 'no-cache']) {
      const room = cached(NEGATIVE)
      room.origin({ status: 404, fields: ['Cache-Control', directive] })
      await room.get('/a')
      await room.clock.advance(1000)
      await room.get('/a')
      expect(room.calls).toHaveLength(2)
    }
  })

  test('a write to the thing, or a Location that names it, ends its absence', async () => {
    for (const [method, target, status] of [
      ['PUT', '/items/1', 201],
      ['POST', '/items', 201],
      ['POST', '/items', 202]
    ] as const) {
      const room = cached(NEGATIVE)
      room.origin({ status: 404 }, { status, fields: ['Location', '/api/items/1'] }, { status: 200 })
      await room.get('/items/1')
      await room.send(method, target)
      expect((await room.get('/items/1')).status).toBe(200)
    }
  })

  test('a thing just announced may be missing for a while: its 404 means not yet and is not remembered', async () => {
    const room = cached(NEGATIVE)
    room.origin({ status: 202, fields: ['Location', '/api/items/1'] }, { status: 404 }, { status: 404 }, { status: 404 })
    await room.send('POST', '/items')
    await room.get('/items/1')
    await room.get('/items/1')
    expect(room.calls).toHaveLength(3)
    await room.clock.advance(300_000)
    await room.get('/items/1')
    await room.get('/items/1')
    expect(room.calls).toHaveLength(4)
  })

  test('how long that takes is the operator’s to say', async () => {
    const room = cached({ ...NEGATIVE, settleMs: 10_000 })
    room.origin({ status: 202, fields: ['Location', '/api/items/1'] }, { status: 404 }, { status: 404 })
    await room.send('POST', '/items')
    await room.clock.advance(9_999)
    await room.get('/items/1')
    await room.clock.advance(1)
    await room.get('/items/1')
    expect((await room.get('/items/1')).cacheStatus).toContain('hit')
    expect(room.calls).toHaveLength(3)
  })

  test('what a 202 has accepted is not kept as it reads until it has settled, and kept from then on', async () => {
    const room = cached({ settleMs: 10_000 })
    room.origin(FRESH, { status: 202, fields: ['Location', '/api/jobs/1'] }, FRESH)
    await room.get('/items/1')
    await room.send('PUT', '/items/1')
    await room.get('/items/1')
    await room.clock.advance(9_999)
    expect((await room.get('/items/1')).source).toBe('upstream')
    await room.clock.advance(1)
    expect((await room.get('/items/1')).source).toBe('upstream')
    expect((await room.get('/items/1')).source).toBe('cache')
    expect(room.calls).toHaveLength(5)
  })

  test('a write that is done with its answer leaves nothing to settle', async () => {
    const room = cached({ settleMs: 10_000 })
    room.origin({ status: 204 }, FRESH)
    await room.send('PUT', '/items/1')
    await room.get('/items/1')
    expect((await room.get('/items/1')).source).toBe('cache')
  })

  test.each([[[]], [['Cache-Control', 'no-cache']], [['Cache-Control', 'no-store']]])(
    'a Location in the 202 to a GET counts as well, asked with %j',
    async (fields) => {
      const room = cached(NEGATIVE)
      room.origin({ status: 404 }, { status: 202, fields: ['Location', '/api/items/1'] }, { status: 200 })
      await room.get('/items/1')
      await room.get('/report', fields)
      expect((await room.get('/items/1')).status).toBe(200)
    }
  )
})

test.each([
  ['PUT', false, 'cache'],
  ['PUT', true, 'upstream'],
  ['OPTIONS', true, 'cache']
] as const)('after a failed %s, sent: %s, the next answer is from %s', async (method, sent, source) => {
  const room = cached()
  function failing(request: Request): never {
    request.trace.sent = sent
    throw new Problem('upstream-unreachable')
  }
  room.origin(FRESH, failing, FRESH)
  await room.get('/a')
  await expect(room.send(method, '/a')).rejects.toMatchObject({ code: 'upstream-unreachable' })
  expect((await room.get('/a')).source).toBe(source)
})
