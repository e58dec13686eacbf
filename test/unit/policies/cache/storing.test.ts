import { describe, expect, test } from 'vitest'
import { field, fieldValues } from '../../../../src/http/fields.ts'
import { httpDate } from '../../../../src/http/http-date.ts'
import { cached, textOf, type CachedSetup, type Scripted } from '../../../support/cached.ts'

/** Asks twice and tells whether the second answer came from the store. */
async function isReused(answer: Scripted, setup: CachedSetup = {}, fields: readonly string[] = []): Promise<boolean> {
  const { get, origin, calls } = cached(setup)
  origin(answer)
  await textOf(await get('/a', fields))
  await textOf(await get('/a', fields))
  return calls.length === 1
}

describe('RFC 9111 §3: what is stored', () => {
  test('an answer with a lifetime is stored and used again', async () => {
    expect(await isReused({ fields: ['Cache-Control', 'max-age=60'] })).toBe(true)
  })

  test('an answer without any is not used again: nothing is guessed unless told to', async () => {
    expect(await isReused({})).toBe(false)
    expect(await isReused({ fields: ['Last-Modified', 'Mon, 01 Jan 2024 00:00:00 GMT'] })).toBe(false)
  })

  test('no-store is never stored, whatever else the answer says', async () => {
    expect(await isReused({ fields: ['Cache-Control', 'max-age=60, No-Store'] })).toBe(false)
    expect(await isReused({ fields: ['Cache-Control', 'public, max-age=60', 'Cache-Control', 'no-store'] })).toBe(false)
  })

  test('must-understand takes the place of no-store for a status the cache understands, and only for one', async () => {
    const fields = ['Cache-Control', 'max-age=60, no-store, must-understand']
    expect(await isReused({ fields })).toBe(true)
    expect(await isReused({ status: 299, fields })).toBe(false)
    expect(await isReused({ status: 299, fields: ['Cache-Control', 'max-age=60, must-understand'] })).toBe(false)
  })

  test('private answers are stored by a private cache, not by a shared one', async () => {
    const fields = ['Cache-Control', 'private, max-age=60']
    expect(await isReused({ fields })).toBe(true)
    expect(await isReused({ fields }, { mode: 'shared' })).toBe(false)
  })

  test('the qualified private keeps only the listed fields out of a shared cache', async () => {
    const { get, origin } = cached({ mode: 'shared' })
    origin({ fields: ['Cache-Control', 'max-age=60, private="X-Secret, x-other"', 'X-Secret', 's', 'X-Other', 'o', 'X-Open', 'p'] })
    expect(field((await get('/a')).fields, 'x-secret')).toBe('s')
    const second = await get('/a')
    expect(second.source).toBe('cache')
    expect(field(second.fields, 'x-secret')).toBeUndefined()
    expect(field(second.fields, 'x-other')).toBeUndefined()
    expect(field(second.fields, 'x-open')).toBe('p')
  })

  test.each(['private=""', 'private, private="x"', 'private="x y"', 'private="x', 'private=" , "'])('%s covers the whole answer', async (directive) => {
    expect(await isReused({ fields: ['Cache-Control', `max-age=60, ${directive}`] }, { mode: 'shared' })).toBe(false)
  })

  test('a shared cache uses answers to authenticated requests only where the provider allows it (§3.5)', async () => {
    const setup: CachedSetup = { mode: 'shared' }
    const authorization = ['Authorization', 'Bearer x']
    expect(await isReused({ fields: ['Cache-Control', 'max-age=60'] }, setup, authorization)).toBe(false)
    for (const allowing of ['public', 'must-revalidate', 's-maxage=60']) {
      expect(await isReused({ fields: ['Cache-Control', `max-age=60, ${allowing}`] }, setup, authorization)).toBe(true)
    }
  })

  test('a credential of the configuration counts as authentication in a shared cache', async () => {
    const { get, origin, calls } = cached({ mode: 'shared' })
    origin({ fields: ['Cache-Control', 'max-age=60'] })
    await get('/a', [], { credential: 'acme' })
    await get('/a', [], { credential: 'acme' })
    expect(calls).toHaveLength(2)
  })

  test.each([203, 204, 299, 300, 301, 302, 303, 307, 308, 400, 404, 405, 410, 414, 499])(
    'status %i is stored where its lifetime is explicit',
    async (status) => {
      expect(await isReused({ status, fields: ['Cache-Control', 'max-age=60'] })).toBe(true)
    }
  )

  test.each([500, 501, 502, 503, 504, 599])('status %i is never stored by a private cache, by a shared one as the provider says', async (status) => {
    const fields = ['Cache-Control', 'public, max-age=60']
    expect(await isReused({ status, fields })).toBe(false)
    expect(await isReused({ status, fields }, { mode: 'shared' })).toBe(true)
    expect(await isReused({ status }, { mode: 'shared' })).toBe(false)
  })

  test.each([206, 304, 401, 403, 407, 412, 416, 421, 428, 429, 431, 511])('status %i is about one request and never stored', async (status) => {
    expect(await isReused({ status, fields: ['Cache-Control', 'max-age=60'] })).toBe(false)
    expect(await isReused({ status, fields: ['Cache-Control', 'public, max-age=60'] }, { mode: 'shared' })).toBe(false)
  })

  test.each(['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND', 'FOO'])('an answer to %s is not stored', async (method) => {
    const { send, origin, calls } = cached()
    origin({ fields: ['Cache-Control', 'max-age=60'] })
    await send(method, '/a')
    await send(method, '/a')
    await send('GET', '/a')
    expect(calls.map((call) => call.method)).toEqual([method, method, 'GET'])
  })

  test('a GET with content is passed through, neither stored nor answered from the store', async () => {
    const { send, origin, calls } = cached()
    origin({ fields: ['Cache-Control', 'max-age=60'] })
    const body = { kind: 'bytes', bytes: Buffer.from('q') } as const
    await send('GET', '/a', [], { body })
    await send('GET', '/a')
    await send('GET', '/a', [], { body })
    expect(calls).toHaveLength(3)
  })

  test('such an answer to POST is as old as it took', async () => {
    const { send, get, origin, clock } = cached()
    origin(async () => {
      await clock.advance(5000)
      return { fields: ['Cache-Control', 'max-age=60', 'Content-Location', '/api/a'] }
    })
    await send('POST', '/a')
    const answer = await get('/a')
    expect([answer.source, field(answer.fields, 'age')]).toEqual(['cache', '5'])
  })

  test.each([201, 202, 203, 303])('an answer to POST with status %i says what became of the POST and stands for no GET', async (status) => {
    const { send, get, origin, calls } = cached()
    origin({ status, fields: ['Cache-Control', 'max-age=60', 'Content-Location', '/api/a'] })
    await send('POST', '/a')
    await get('/a')
    expect(calls.map((call) => call.method)).toEqual(['POST', 'GET'])
  })

  test('an answer to POST that names itself and has a lifetime stands for GET (RFC 9110 §9.3.3)', async () => {
    const { send, origin, calls } = cached()
    origin({ fields: ['Cache-Control', 'max-age=60', 'Content-Location', '/api/a'], body: 'posted' })
    await send('POST', '/a')
    expect(await textOf(await send('GET', '/a'))).toBe('posted')
    origin({ fields: ['Cache-Control', 'max-age=60', 'Content-Location', '/api/other'] })
    await send('POST', '/b')
    await send('GET', '/b')
    origin({ fields: ['Content-Location', '/api/c', 'ETag', '"1"'] })
    await send('POST', '/c')
    await send('GET', '/c')
    expect(calls.map((call) => `${call.method} ${call.target}`)).toEqual(['POST /a', 'POST /b', 'GET /b', 'POST /c', 'GET /c'])
  })

  test('request no-store goes past the cache: not answered from it, not stored', async () => {
    const { get, origin, calls } = cached()
    origin({ fields: ['Cache-Control', 'max-age=60'] })
    await get('/a', ['Cache-Control', 'no-store'])
    await get('/a')
    await get('/a')
    const past = await get('/a', ['Cache-Control', 'no-store'])
    expect(past.cacheStatus).toBe('fwd=request; fwd-status=200')
    expect(calls).toHaveLength(3)
  })
})

describe('RFC 9111 §3.1: which fields are stored', () => {
  test('all fields are, unknown ones and repeated lines included, in their order and spelling', async () => {
    const { get, origin } = cached()
    const fields = ['cAche-Control', 'max-age=60', 'X-Foo', '1', 'Set-Cookie', 'a=1', 'x-foo', '2', 'Content-Type', 'text/x', 'Clear-Site-Data', '"*"']
    origin({ fields: ['Date', httpDate(Date.UTC(2026, 5, 1)), ...fields] })
    await get('/a')
    expect((await get('/a')).fields).toEqual(['Date', httpDate(Date.UTC(2026, 5, 1)), ...fields, 'Age', '0'])
  })

  test('fields of the connection, those it names, and those of a proxy are not', async () => {
    const { get, origin } = cached()
    const gone = [
      'Connection',
      'x-hop, X-Other',
      'X-Hop',
      '1',
      'X-Other',
      '2',
      'Keep-Alive',
      'timeout=5',
      'Transfer-Encoding',
      'chunked',
      'Upgrade',
      'x',
      'TE',
      'x',
      'Trailer',
      'x'
    ]
    const proxy = ['Proxy-Authenticate', 'Basic', 'Proxy-Authentication-Info', 'x', 'Proxy-Authorization', 'y', 'Proxy-Connection', 'close']
    origin({ fields: ['Cache-Control', 'max-age=60', ...gone, ...proxy, 'X-Kept', '3'] })
    await get('/a')
    const names = (await get('/a')).fields.filter((_, index) => index % 2 === 0)
    expect(names).toEqual(['Date', 'Cache-Control', 'X-Kept', 'Age'])
  })

  test('an answer without a date gets the time it was received (RFC 9110 §6.6.1)', async () => {
    const { get, origin, clock } = cached()
    origin({ fields: ['Cache-Control', 'max-age=60', 'Date', 'foo'] })
    const receivedAt = clock.wallNow()
    await get('/a')
    await clock.advance(5000)
    expect(fieldValues((await get('/a')).fields, 'date')).toEqual([httpDate(receivedAt)])
  })

  test('the qualified no-cache keeps the listed fields out of later answers', async () => {
    const { get, origin } = cached()
    origin({ fields: ['Cache-Control', 'no-cache="a, B", max-age=60', 'A', '1', 'b', '2', 'C', '3'] })
    await get('/a')
    const second = await get('/a')
    expect(second.source).toBe('cache')
    expect([field(second.fields, 'a'), field(second.fields, 'b'), field(second.fields, 'c')]).toEqual([undefined, undefined, '3'])
  })
})

describe('sizes', () => {
  test('an answer over maxEntryBytes is passed on whole, but not stored', async () => {
    const { get, origin, calls, cache } = cached({ maxEntryBytes: 10 })
    origin({ fields: ['Cache-Control', 'max-age=60'], body: 'x'.repeat(11) })
    expect(await textOf(await get('/a'))).toHaveLength(11)
    expect((await get('/a')).cacheStatus).toBe('fwd=uri-miss; fwd-status=200')
    expect(calls).toHaveLength(2)
    expect(cache.entries).toBe(0)
  })

  test('an empty answer is stored like any other', async () => {
    expect(await isReused({ fields: ['Cache-Control', 'max-age=60'], body: '' })).toBe(true)
  })
})
