import { describe, expect, test } from 'vitest'
import { field, fieldValues } from '../../../../src/http/fields.ts'
import { httpDate } from '../../../../src/http/http-date.ts'
import { cached, textOf, type Cached } from '../../../support/cached.ts'

const LONG_AGO = 'Mon, 01 Jan 2024 00:00:00 GMT'

/** The fields of the n-th call that reached the origin. */
function call({ calls }: Cached, number: number): readonly string[] {
  return calls[number - 1]?.fields ?? []
}

describe('RFC 9111 §4.3.1: asking whether a stored answer still holds', () => {
  test('a stale answer is validated with its entity tag and date, the caller’s other fields kept', async () => {
    const room = cached()
    room.origin({ fields: ['Cache-Control', 'max-age=60', 'ETag', 'W/"1"', 'Last-Modified', LONG_AGO], body: 'one' }, { status: 304 })
    await room.get('/a', ['Abc', '123'])
    await room.clock.advance(60_000)
    const again = await room.get('/a', ['Abc', '123'])
    expect(await textOf(again)).toBe('one')
    expect(again).toMatchObject({ status: 200, source: 'upstream', cacheStatus: 'fwd=stale; fwd-status=304; stored' })
    expect(call(room, 2)).toEqual(['Abc', '123', 'If-None-Match', 'W/"1"', 'If-Modified-Since', LONG_AGO])
    expect(room.events.filter((event) => event.kind === 'cache').map((event) => event.result)).toEqual(['miss', 'miss', 'revalidated'])
  })

  test('a date alone serves too; what is no date is not sent', async () => {
    const room = cached()
    room.origin({ fields: ['Cache-Control', 'max-age=60', 'Last-Modified', LONG_AGO] }, { status: 304 })
    await room.get('/a')
    await room.clock.advance(60_000)
    await room.get('/a')
    expect(call(room, 2)).toEqual(['If-Modified-Since', LONG_AGO])
    room.origin({ fields: ['Cache-Control', 'max-age=60', 'Last-Modified', 'yesterday'] })
    await room.get('/b')
    await room.clock.advance(60_000)
    await room.get('/b')
    expect(call(room, 4)).toEqual([])
  })

  test('an answer with a validator and no lifetime is kept and validated each time', async () => {
    const room = cached()
    room.origin({ fields: ['ETag', '"1"'], body: 'one' }, { status: 304 })
    await room.get('/a')
    expect(await textOf(await room.get('/a'))).toBe('one')
    expect(field(call(room, 2), 'if-none-match')).toBe('"1"')
  })

  test('an answer without validators is asked for anew', async () => {
    const room = cached()
    room.origin({ fields: ['Cache-Control', 'max-age=60'] })
    await room.get('/a')
    await room.clock.advance(60_000)
    expect(await textOf(await room.get('/a'))).toBe('answer 2')
    expect(call(room, 2)).toEqual([])
  })
})

describe('RFC 9111 §4.3.3: what comes of it', () => {
  test('a full answer takes the place of the stored one', async () => {
    const room = cached()
    room.origin(
      { fields: ['Cache-Control', 'max-age=60', 'ETag', '"1"'], body: 'one' },
      { fields: ['Cache-Control', 'max-age=60', 'ETag', '"2"'], body: 'two' }
    )
    await room.get('/a')
    await room.clock.advance(60_000)
    expect(await textOf(await room.get('/a'))).toBe('two')
    expect(await textOf(await room.get('/a'))).toBe('two')
    expect(room.calls).toHaveLength(2)
  })

  test('a full answer that may not be stored is given to the caller, and the outdated one is forgotten', async () => {
    const room = cached({ staleIfError: 3_600_000 })
    room.origin({ fields: ['Cache-Control', 'max-age=60', 'ETag', '"1"'] }, { fields: ['Cache-Control', 'no-store'], body: 'two' }, { status: 503 })
    await room.get('/a')
    await room.clock.advance(60_000)
    expect(await textOf(await room.get('/a'))).toBe('two')
    expect((await room.get('/a')).status).toBe(503)
    expect(field(call(room, 3), 'if-none-match')).toBeUndefined()
  })

  test('an error of the server goes to the caller, and the stored answer stays', async () => {
    const room = cached()
    room.origin({ fields: ['Cache-Control', 'max-age=60', 'ETag', '"1"'], body: 'one' }, { status: 500 }, { status: 304 })
    await room.get('/a')
    await room.clock.advance(60_000)
    expect((await room.get('/a')).status).toBe(500)
    expect(await textOf(await room.get('/a'))).toBe('one')
  })

  test.each([401, 403])('a %i purges the stored answer: the caller may not see it any more', async (status) => {
    const room = cached({ staleIfError: 3_600_000 })
    room.origin({ fields: ['Cache-Control', 'max-age=60', 'ETag', '"1"'] }, { status }, { status: 503 })
    await room.get('/a')
    await room.clock.advance(60_000)
    expect((await room.get('/a')).status).toBe(status)
    expect(room.cache.entries).toBe(0)
    expect((await room.get('/a')).status).toBe(503)
  })

  test.each([401, 403])('a %i purges the other variants of the same identity too', async (status) => {
    const room = cached()
    room.origin({ fields: ['Cache-Control', 'max-age=60', 'Vary', 'Foo'] })
    await room.get('/a', ['Foo', '1'])
    await room.get('/a', ['Foo', '2'])
    await room.send('HEAD', '/a', ['Foo', '3'])
    expect(room.cache.entries).toBe(3)
    room.origin({ status })
    await room.get('/a', ['Foo', '4'])
    expect(room.cache.entries).toBe(0)
  })

  test.each([408, 425, 429])('a %i is about the moment: the stored answer stays', async (status) => {
    const room = cached()
    room.origin({ fields: ['Cache-Control', 'max-age=60', 'ETag', '"1"'] }, { status }, { status: 304 })
    await room.get('/a')
    await room.clock.advance(60_000)
    expect((await room.get('/a')).status).toBe(status)
    expect((await room.get('/a')).status).toBe(200)
  })

  test('a redirect in answer to a validation refreshes nothing and is what the caller gets', async () => {
    const room = cached()
    room.origin({ fields: ['Cache-Control', 'max-age=60', 'ETag', '"1"'] }, { status: 302, fields: ['Location', '/elsewhere'] })
    await room.get('/a')
    await room.clock.advance(60_000)
    expect((await room.get('/a')).status).toBe(302)
    expect((await room.get('/a')).status).toBe(302)
    expect(room.calls).toHaveLength(3)
  })

  test('a 304 to a request the cache made no condition of is the caller’s own', async () => {
    const room = cached()
    room.origin({ status: 304, fields: ['ETag', '"x"'] })
    expect((await room.get('/a', ['If-None-Match', '"x"'])).status).toBe(304)
    expect(room.cache.entries).toBe(0)
  })
})

describe('RFC 9111 §4.3.4 and §3.2: freshening', () => {
  async function freshen(first: readonly string[], second: readonly string[]): Promise<Cached> {
    const room = cached()
    room.origin({ fields: ['Cache-Control', 'max-age=60', 'ETag', '"1"', ...first], body: 'one' }, { status: 304, fields: second })
    await room.get('/a')
    await room.clock.advance(60_000)
    return room
  }

  test('fields of the 304 replace all lines of the same name, in the answer and in the store; the others stay', async () => {
    const room = await freshen(['Test', 'A', 'test', 'B', 'Kept', 'K'], ['TEST', 'C', 'New', 'N'])
    for (const source of ['upstream', 'cache']) {
      const answer = await room.get('/a')
      expect(answer.source).toBe(source)
      expect(fieldValues(answer.fields, 'test')).toEqual(['C'])
      expect([field(answer.fields, 'kept'), field(answer.fields, 'new')]).toEqual(['K', 'N'])
      expect(await textOf(answer)).toBe('one')
    }
  })

  test('the lifetime begins anew, with the age the 304 states', async () => {
    const room = await freshen([], ['Age', '20'])
    await room.get('/a')
    await room.clock.advance(39_000)
    const hit = await room.get('/a')
    expect(hit).toMatchObject({ source: 'cache', cacheStatus: 'hit; ttl=1' })
    expect(field(hit.fields, 'age')).toBe('59')
    await room.clock.advance(1000)
    await room.get('/a')
    expect(room.calls).toHaveLength(3)
  })

  test('a 304 without a date counts from when it was received', async () => {
    const room = cached()
    room.origin(
      { fields: ['Cache-Control', 'max-age=60', 'ETag', '"1"'] },
      { response: { status: 304, fields: ['ETag', '"1"'], body: { kind: 'none' }, source: 'upstream' } }
    )
    await room.get('/a')
    await room.clock.advance(60_000)
    const now = httpDate(room.clock.wallNow())
    await room.get('/a')
    const hit = await room.get('/a')
    expect([hit.source, field(hit.fields, 'date'), field(hit.fields, 'age')]).toEqual(['cache', now, '0'])
  })

  test('a new Cache-Control decides from then on', async () => {
    const room = await freshen([], ['Cache-Control', 'max-age=600'])
    await room.get('/a')
    await room.clock.advance(599_000)
    expect((await room.get('/a')).source).toBe('cache')
    const gone = await freshen([], ['Cache-Control', 'no-store'])
    expect(await textOf(await gone.get('/a'))).toBe('one')
    expect(gone.cache.entries).toBe(0)
  })

  test('what describes the stored bytes is not replaced', async () => {
    const room = await freshen(
      ['Content-Length', '3', 'Content-Encoding', 'x', 'Content-Type', 'a/a'],
      ['Content-Length', '10', 'Content-Encoding', 'gzip', 'Content-Type', 'b/b', 'Content-Range', 'bytes 0-1/2']
    )
    const { fields } = await room.get('/a')
    expect(['content-length', 'content-encoding', 'content-type', 'content-range'].map((name) => field(fields, name))).toEqual(['3', 'x', 'b/b', undefined])
  })

  test('what is not stored does not come in by a 304 either', async () => {
    const room = await freshen([], ['Connection', 'x-hop', 'X-Hop', '1', 'Proxy-Authenticate', 'Basic', 'Transfer-Encoding', 'chunked'])
    const { fields } = await room.get('/a')
    expect(['connection', 'x-hop', 'proxy-authenticate', 'transfer-encoding'].map((name) => field(fields, name))).toEqual([
      undefined,
      undefined,
      undefined,
      undefined
    ])
  })

  test('a 304 for a different strong entity tag confirms nothing: the answer is asked for anew, without conditions', async () => {
    const room = cached()
    room.origin(
      { fields: ['Cache-Control', 'max-age=60', 'ETag', '"1"'], body: 'one' },
      { status: 304, fields: ['ETag', '"2"', 'X', 'y'] },
      { fields: ['ETag', '"2"'], body: 'two' }
    )
    await room.get('/a')
    await room.clock.advance(60_000)
    const answer = await room.get('/a')
    expect(await textOf(answer)).toBe('two')
    expect(field(call(room, 3), 'if-none-match')).toBeUndefined()
  })

  test('a weak entity tag confirms the strong one of the same content, not another', async () => {
    const room = await freshen([], ['ETag', 'W/"1"', 'X', 'y'])
    expect(field((await room.get('/a')).fields, 'x')).toBe('y')
    expect(room.calls).toHaveLength(2)
  })

  test('every variant with the same strong entity tag is freshened by one 304', async () => {
    const room = cached()
    const fields = ['Cache-Control', 'max-age=60', 'ETag', '"1"', 'Vary', 'Foo', 'X', 'old']
    room.origin({ fields, body: 'one' }, { fields, body: 'one' }, { status: 304, fields: ['ETag', '"1"', 'X', 'new'] })
    await room.get('/a', ['Foo', '1'])
    await room.get('/a', ['Foo', '2'])
    await room.clock.advance(60_000)
    await room.get('/a', ['Foo', '1'])
    const other = await room.get('/a', ['Foo', '2'])
    expect([other.source, field(other.fields, 'x')]).toEqual(['cache', 'new'])
    expect((await room.get('/a', ['Foo', '1'])).source).toBe('cache')
    expect(room.calls).toHaveLength(3)
  })
})

describe('RFC 9111 §4.3.2: the caller’s own conditions', () => {
  const FRESH = ['Cache-Control', 'max-age=60', 'ETag', '"abc"', 'Last-Modified', LONG_AGO, 'Content-Type', 'text/x', 'Vary', 'Foo', 'X-More', '1']

  test('a matching entity tag is answered with 304 from the store, with what guides a cache and nothing else', async () => {
    const room = cached()
    room.origin({ fields: FRESH })
    await room.get('/a')
    const { status, body, source, fields } = await room.get('/a', ['If-None-Match', '"abc"'])
    expect([status, body.kind, source, room.calls.length]).toEqual([304, 'none', 'cache', 1])
    expect(fields.filter((_, index) => index % 2 === 0)).toEqual(['Date', 'Cache-Control', 'ETag', 'Vary', 'X-More', 'Age'])
  })

  test.each([
    ['W/"abc"', 304],
    ['"x", "abc", "y"', 304],
    ['"x","abc"', 304],
    ['*', 304],
    ['"x"', 200],
    ['"a,bc"', 200],
    ['"abc', 200],
    ['abc', 200],
    ['', 200]
  ])('If-None-Match: %s gives %i', async (list, status) => {
    const room = cached()
    room.origin({ fields: FRESH })
    await room.get('/a')
    expect((await room.get('/a', ['If-None-Match', list])).status).toBe(status)
    expect(room.calls).toHaveLength(1)
  })

  test('an entity tag with a comma in it is one tag', async () => {
    const room = cached()
    room.origin({ fields: ['Cache-Control', 'max-age=60', 'ETag', '"a,b"'] })
    await room.get('/a')
    expect((await room.get('/a', ['If-None-Match', '"x", "a,b"'])).status).toBe(304)
    expect((await room.get('/a', ['If-None-Match', '"x"', 'If-None-Match', '"a,b"'])).status).toBe(304)
  })

  test('If-None-Match counts, If-Modified-Since beside it does not', async () => {
    const room = cached()
    room.origin({ fields: FRESH })
    await room.get('/a')
    expect((await room.get('/a', ['If-None-Match', '"x"', 'If-Modified-Since', httpDate(room.clock.wallNow())])).status).toBe(200)
    expect((await room.get('/a', ['If-None-Match', '"abc"', 'If-Modified-Since', 'Thu, 01 Jan 1970 00:00:00 GMT'])).status).toBe(304)
  })

  test.each([
    ['Mon, 01 Jan 2024 00:00:00 GMT', 304],
    ['Mon, 01 Jan 2024 00:00:01 GMT', 304],
    ['Monday, 01-Jan-24 00:00:00 GMT', 304],
    ['Mon Jan  1 00:00:00 2024', 304],
    ['Sun, 31 Dec 2023 23:59:59 GMT', 200],
    ['yesterday', 200],
    ['2024-01-01', 200]
  ])('If-Modified-Since: %s gives %i', async (date, status) => {
    const room = cached()
    room.origin({ fields: FRESH })
    await room.get('/a')
    expect((await room.get('/a', ['If-Modified-Since', date])).status).toBe(status)
    expect(room.calls).toHaveLength(1)
  })

  test('two dates are no condition', async () => {
    const room = cached()
    room.origin({ fields: FRESH })
    await room.get('/a')
    expect((await room.get('/a', ['If-Modified-Since', LONG_AGO, 'If-Modified-Since', LONG_AGO])).status).toBe(200)
  })

  test('without Last-Modified the date of the answer decides', async () => {
    const room = cached()
    room.origin({ fields: ['Cache-Control', 'max-age=60'] })
    const now = room.clock.wallNow()
    await room.get('/a')
    expect((await room.get('/a', ['If-Modified-Since', httpDate(now)])).status).toBe(304)
    expect((await room.get('/a', ['If-Modified-Since', httpDate(now - 1000)])).status).toBe(200)
  })

  test('conditions on a stored answer other than 200 are not judged', async () => {
    const room = cached()
    room.origin({ status: 404, fields: ['Cache-Control', 'max-age=60', 'ETag', '"abc"'] })
    await room.get('/a')
    expect((await room.get('/a', ['If-None-Match', '"abc"'])).status).toBe(404)
  })

  test('If-Match and If-Unmodified-Since are the origin’s to judge', async () => {
    const room = cached()
    room.origin({ fields: FRESH })
    await room.get('/a')
    await room.get('/a', ['If-Match', '"abc"'])
    await room.get('/a', ['If-Unmodified-Since', LONG_AGO])
    expect(room.calls).toHaveLength(3)
    expect(field(call(room, 2), 'if-match')).toBe('"abc"')
  })

  test('with nothing stored the conditions go to the provider unchanged', async () => {
    const room = cached()
    await room.get('/a', ['If-None-Match', '"q"', 'If-Modified-Since', LONG_AGO])
    expect(call(room, 1)).toEqual(['If-None-Match', '"q"', 'If-Modified-Since', LONG_AGO])
  })

  test('on a stale answer the cache asks for itself, and then judges the caller’s condition', async () => {
    const room = cached()
    room.origin({ fields: FRESH, body: 'one' }, { status: 304 }, { fields: [...FRESH, 'ETag', '"new"'], body: 'two' })
    await room.get('/a')
    await room.clock.advance(60_000)
    expect((await room.get('/a', ['If-None-Match', '"abc"'])).status).toBe(304)
    expect(fieldValues(call(room, 2), 'if-none-match')).toEqual(['"abc"'])
    await room.clock.advance(60_000)
    const other = await room.get('/a', ['If-None-Match', '"mine"'])
    expect(fieldValues(call(room, 3), 'if-none-match')).toEqual(['"abc"'])
    expect([other.status, await textOf(other)]).toEqual([200, 'two'])
  })

  test('a caller that already has the new answer gets 304 although the cache had to fetch it', async () => {
    const room = cached()
    room.origin({ fields: FRESH }, { fields: ['Cache-Control', 'max-age=60', 'ETag', '"new"'] })
    await room.get('/a')
    await room.clock.advance(60_000)
    expect((await room.get('/a', ['If-None-Match', '"new"'])).status).toBe(304)
  })
})
