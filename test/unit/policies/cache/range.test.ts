import { describe, expect, test } from 'vitest'
import { field, fieldValues, hasField } from '../../../../src/http/fields.ts'
import { httpDate } from '../../../../src/http/http-date.ts'
import { cached, textOf, type Cached } from '../../../support/cached.ts'

const FIELDS = ['Cache-Control', 'max-age=60', 'ETag', '"1"', 'Content-Length', '10', 'Content-Type', 'text/x']

async function holding(body = '0123456789', fields: readonly string[] = FIELDS): Promise<Cached> {
  const room = cached()
  room.origin({ fields, body })
  await room.get('/a')
  return room
}

describe('RFC 9110 §14: ranges from a stored answer', () => {
  test.each([
    ['bytes=0-1', '01', 'bytes 0-1/10'],
    ['bytes=1-', '123456789', 'bytes 1-9/10'],
    ['bytes=-1', '9', 'bytes 9-9/10'],
    ['bytes=-20', '0123456789', 'bytes 0-9/10'],
    ['bytes=8-99', '89', 'bytes 8-9/10'],
    ['BYTES=0-0', '0', 'bytes 0-0/10']
  ])('%s is served as 206', async (range, text, contentRange) => {
    const room = await holding()
    const part = await room.get('/a', ['Range', range])
    expect([part.status, await textOf(part), field(part.fields, 'content-range'), part.source]).toEqual([206, text, contentRange, 'cache'])
    expect([field(part.fields, 'etag'), field(part.fields, 'content-type')]).toEqual(['"1"', 'text/x'])
    expect(hasField(part.fields, 'content-length')).toBe(false)
    expect(room.calls).toHaveLength(1)
  })

  test.each(['bytes=10-', 'bytes=99-100', 'bytes=-0'])('%s is outside: 416 with the size', async (range) => {
    const room = await holding()
    const answer = await room.get('/a', ['Range', range])
    expect([answer.status, answer.body.kind, field(answer.fields, 'content-range')]).toEqual([416, 'none', 'bytes */10'])
  })

  test.each(['bytes=5-1', 'bytes=', 'bytes=a-b', 'lines=0-1', 'bytes=0-1,4-5', `bytes=${'0-,'.repeat(1000)}0-`, 'bytes=--1', 'bytes=0--1', ''])(
    '%.30s is no range to serve: the whole answer',
    async (range) => {
      const room = await holding()
      const answer = await room.get('/a', ['Range', range])
      expect([answer.status, await textOf(answer)]).toEqual([200, '0123456789'])
    }
  )

  test('two Range or two If-Range lines are one value nobody can read: the whole answer (RFC 9110 §5.3)', async () => {
    const room = await holding()
    const ask = async (...fields: string[]) => (await room.get('/a', fields)).status
    expect(await ask('Range', 'bytes=0-1', 'range', 'bytes=4-5')).toBe(200)
    expect(await ask('Range', 'bytes=0-1', 'If-Range', '"2"', 'If-Range', '"1"')).toBe(200)
    expect(await ask('Range', 'bytes=0-1', 'If-Range', '"1"')).toBe(206)
    expect(room.calls).toHaveLength(1)
  })

  test('If-Range: the part where the caller has the same content, else the whole', async () => {
    const lastModified = 'Mon, 01 Jan 2024 00:00:00 GMT'
    const room = await holding('0123456789', [...FIELDS, 'Last-Modified', lastModified])
    const ask = async (ifRange: string) => (await room.get('/a', ['Range', 'bytes=0-1', 'If-Range', ifRange])).status
    expect(await ask('"1"')).toBe(206)
    expect(await ask('"2"')).toBe(200)
    expect(await ask('W/"1"')).toBe(200)
    expect(await ask(lastModified)).toBe(206)
    expect(await ask('Mon, 01 Jan 2024 00:00:01 GMT')).toBe(200)
    expect(room.calls).toHaveLength(1)
  })

  test('If-Range with a date needs a date that is a strong validator, with a weak entity tag nothing fits', async () => {
    const room = cached()
    const now = httpDate(room.clock.wallNow())
    room.origin({ fields: ['Cache-Control', 'max-age=60', 'Last-Modified', now, 'ETag', 'W/"1"'], body: '0123456789' })
    await room.get('/a')
    expect((await room.get('/a', ['Range', 'bytes=0-1', 'If-Range', now])).status).toBe(200)
    expect((await room.get('/a', ['Range', 'bytes=0-1', 'If-Range', 'W/"1"'])).status).toBe(200)
  })

  test('a condition that gives 304 comes before the range', async () => {
    const room = await holding()
    expect((await room.get('/a', ['Range', 'bytes=0-1', 'If-None-Match', '"1"'])).status).toBe(304)
  })

  test('Range means nothing for HEAD and for a stored 404', async () => {
    const room = await holding()
    expect((await room.send('HEAD', '/a', ['Range', 'bytes=0-1'])).status).toBe(200)
    const missing = cached()
    missing.origin({ status: 404, fields: FIELDS, body: '0123456789' })
    await missing.get('/a')
    expect((await missing.get('/a', ['Range', 'bytes=0-1'])).status).toBe(404)
  })
})

describe('RFC 9111 §3.3: partial answers', () => {
  test('with nothing stored the range goes to the provider, its 206 to the caller and nowhere else', async () => {
    const room = cached()
    room.origin({ status: 206, fields: ['Cache-Control', 'max-age=60', 'Content-Range', 'bytes 0-1/10'], body: '01' }, { fields: FIELDS, body: '0123456789' })
    const part = await room.get('/a', ['Range', 'bytes=0-1'])
    expect([part.status, await textOf(part)]).toEqual([206, '01'])
    expect(field(room.calls[0]?.fields ?? [], 'range')).toBe('bytes=0-1')
    expect(room.cache.entries).toBe(0)
    expect(await textOf(await room.get('/a'))).toBe('0123456789')
    expect(room.calls).toHaveLength(2)
  })

  test('a whole answer to a range request is stored as what it is', async () => {
    const room = cached()
    room.origin({ fields: FIELDS, body: '0123456789' })
    await room.get('/a', ['Range', 'bytes=0-1'])
    expect(await textOf(await room.get('/a'))).toBe('0123456789')
    expect(room.calls).toHaveLength(1)
  })

  test('a stale answer is validated as a whole, and the part cut from the outcome', async () => {
    const room = cached()
    room.origin({ fields: FIELDS, body: '0123456789' }, { status: 304 }, { fields: ['Cache-Control', 'max-age=60', 'ETag', '"2"'], body: 'abcdefghij' })
    await room.get('/a')
    await room.clock.advance(60_000)
    expect(await textOf(await room.get('/a', ['Range', 'bytes=0-1', 'If-Range', '"1"']))).toBe('01')
    expect(['range', 'if-range', 'if-none-match'].map((name) => field(room.calls[1]?.fields ?? [], name))).toEqual([undefined, undefined, '"1"'])
    await room.clock.advance(60_000)
    const part = await room.get('/a', ['Range', 'bytes=0-1'])
    expect([part.status, await textOf(part)]).toEqual([206, 'ab'])
    const whole = await room.get('/a', ['Range', 'bytes=0-1', 'If-Range', '"1"'])
    expect([whole.status, await textOf(whole)]).toEqual([200, 'abcdefghij'])
  })

  test('a 200 that calls itself a part is not cut', async () => {
    const room = await holding('0123456789', [...FIELDS, 'Content-Range', 'bytes 0-9/20'])
    const answer = await room.get('/a', ['Range', 'bytes=0-1'])
    expect([answer.status, await textOf(answer)]).toEqual([200, '0123456789'])
  })
})

describe('RFC 9111 §4.3.5: HEAD', () => {
  test('HEAD is served from a stored GET: its header and length, no body', async () => {
    const room = await holding('0123456789', ['Cache-Control', 'max-age=60'])
    const head = await room.send('HEAD', '/a')
    expect([head.status, head.body.kind, head.source, field(head.fields, 'content-length')]).toEqual([200, 'none', 'cache', '10'])
    expect((await room.send('HEAD', '/a', ['If-Modified-Since', httpDate(room.clock.wallNow())])).status).toBe(304)
    expect(room.calls).toHaveLength(1)
  })

  test('an answer to HEAD serves later HEADs, never a GET', async () => {
    const room = cached()
    room.origin({ fields: ['Cache-Control', 'max-age=60', 'Content-Length', '10'] })
    await room.send('HEAD', '/a')
    expect((await room.send('HEAD', '/a')).source).toBe('cache')
    expect(room.calls).toHaveLength(1)
    await room.get('/a')
    expect(room.calls.map((call) => call.method)).toEqual(['HEAD', 'GET'])
  })

  test('a HEAD is served from a stale GET where its caller or the provider allows that', async () => {
    const room = await holding('0123456789', ['Cache-Control', 'max-age=60, stale-while-revalidate=30'])
    await room.clock.advance(70_000)
    const allowed = await room.send('HEAD', '/a', ['Cache-Control', 'max-stale, only-if-cached'])
    expect([allowed.status, allowed.source, allowed.body.kind]).toEqual([200, 'stale', 'none'])
    const behind = await room.send('HEAD', '/a')
    expect([behind.source, field(behind.fields, 'content-length')]).toEqual(['stale', '10'])
    expect(room.calls.map((call) => call.method)).toEqual(['GET', 'GET'])
  })

  test('a HEAD for which nothing stored may be used says so: only another variant is a vary-miss (RFC 9211 §2.2)', async () => {
    const room = await holding('0123456789', ['Cache-Control', 'max-age=60', 'Vary', 'Foo'])
    expect((await room.send('HEAD', '/a', ['Foo', '1'])).cacheStatus).toMatch(/^fwd=vary-miss;/)
    await room.clock.advance(60_000)
    expect((await room.send('HEAD', '/a')).cacheStatus).toMatch(/^fwd=miss;/)
    expect((await room.send('HEAD', '/b')).cacheStatus).toMatch(/^fwd=uri-miss;/)
  })

  test('a HEAD on a stale GET goes upstream as HEAD', async () => {
    const room = await holding()
    await room.clock.advance(60_000)
    await room.send('HEAD', '/a')
    expect(room.calls.map((call) => call.method)).toEqual(['GET', 'HEAD'])
  })

  test('a HEAD that matches freshens the stored GET and updates its fields', async () => {
    const room = await holding()
    await room.clock.advance(60_000)
    room.origin({ fields: ['ETag', '"1"', 'Cache-Control', 'max-age=600', 'X-New', '1', 'Content-Length', '10'] })
    await room.send('HEAD', '/a')
    const get = await room.get('/a')
    expect([get.source, await textOf(get), field(get.fields, 'x-new'), field(get.fields, 'content-type')]).toEqual(['cache', '0123456789', '1', 'text/x'])
  })

  test('the GET it freshens is as old as the answer to HEAD says, and as that took', async () => {
    const room = await holding()
    room.origin(async () => {
      await room.clock.advance(5000)
      return { fields: [...FIELDS, 'Age', '20'] }
    })
    await room.send('HEAD', '/a', ['Cache-Control', 'no-cache'])
    const get = await room.get('/a')
    expect([get.source, fieldValues(get.fields, 'age')]).toEqual(['cache', ['25']])
  })

  test('an answer to HEAD that a write has overtaken changes nothing in what was stored since', async () => {
    const room = await holding()
    const answer = Promise.withResolvers<void>()
    room.origin(async (request) => {
      if (request.method !== 'HEAD') return { fields: ['Cache-Control', 'max-age=60'], body: 'abcdefghij' }
      await answer.promise
      return { fields: ['Cache-Control', 'max-age=60', 'Content-Length', '10', 'X-Old', '1'] }
    })
    const head = room.send('HEAD', '/a', ['Cache-Control', 'no-cache'])
    await room.send('PUT', '/a')
    await room.get('/a')
    answer.resolve()
    await head
    const get = await room.get('/a')
    expect([get.source, await textOf(get), field(get.fields, 'x-old')]).toEqual(['cache', 'abcdefghij', undefined])
  })

  test.each([
    ['another entity tag', ['ETag', '"2"']],
    ['another length', ['ETag', '"1"', 'Content-Length', '11']],
    ['another modification date', ['Last-Modified', 'Mon, 01 Jan 2024 00:00:00 GMT']]
  ])('a HEAD with %s outdates the stored GET', async (_what, fields) => {
    const room = await holding()
    room.origin({ fields: ['Cache-Control', 'max-age=600', ...fields] })
    await room.send('HEAD', '/a', ['Cache-Control', 'no-cache'])
    expect((await room.get('/a')).source).toBe('upstream')
  })
})
