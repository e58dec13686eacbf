import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { httpDate } from '../../../../src/http/http-date.ts'
import { cached, textOf, type Cached } from '../../../support/cached.ts'

function room(vary: string, more: readonly string[] = []): Cached {
  const made = cached()
  made.origin({ fields: ['Cache-Control', 'max-age=60', ...(vary === '' ? [] : ['Vary', vary]), ...more] })
  return made
}

describe('RFC 9111 §4.1: negotiated answers', () => {
  test('an answer is used where all fields named by Vary are the same, and only there', async () => {
    const { get, calls } = room('Foo, BAR')
    await get('/a', ['foo', '1', 'Bar', 'abc', 'Other', '2'])
    expect((await get('/a', ['Bar', 'abc', 'Foo', '1', 'Other', '3'])).source).toBe('cache')
    await get('/a', ['Foo', '1', 'Bar', 'abcd'])
    await get('/a', ['Foo', '2', 'Bar', 'abc'])
    await get('/a', ['Foo', '1'])
    await get('/a')
    expect(calls).toHaveLength(5)
  })

  test('an absent field only matches an absent one', async () => {
    const { get, calls } = room('Foo')
    await get('/a')
    expect((await get('/a')).source).toBe('cache')
    await get('/a', ['Foo', ''])
    await get('/a', ['Foo', '1'])
    expect(calls).toHaveLength(3)
  })

  test.each(['*', '*, *', ', *', '*, Foo', 'Foo, *'])('Vary: %s never matches', async (vary) => {
    const { get, calls } = room(vary)
    await get('/a', ['Foo', '1'])
    await get('/a', ['Foo', '1'])
    expect(calls).toHaveLength(2)
  })

  test('several variants are held side by side', async () => {
    const { get, calls, cache } = room('Foo')
    const texts = await Promise.all(['1', '2', '3'].map(async (foo) => textOf(await get('/a', ['Foo', foo]))))
    for (const [index, foo] of ['1', '2', '3'].entries()) expect(await textOf(await get('/a', ['Foo', foo]))).toBe(texts[index])
    expect([calls.length, cache.entries]).toEqual([3, 3])
  })

  test('a miss among variants says so', async () => {
    const { get } = room('Foo')
    await get('/a', ['Foo', '1'])
    expect((await get('/a', ['Foo', '2'])).cacheStatus).toBe('fwd=vary-miss; fwd-status=200; stored')
  })

  test('lines of one field are one list, blanks around its commas mean nothing, inside quotes they do', async () => {
    const { get, calls } = room('Foo')
    await get('/a', ['Foo', '1, 2'])
    expect((await get('/a', ['Foo', '1', 'Foo', '2'])).source).toBe('cache')
    expect((await get('/a', ['Foo', ' 1,2 '])).source).toBe('cache')
    await get('/a', ['Foo', '"a, b"'])
    await get('/a', ['Foo', '"a,b"'])
    await get('/a', ['Foo', '2, 1'])
    expect(calls).toHaveLength(4)
  })

  test.each(['de, en', 'eN, De', ' en ,   de', 'de;q=1.0, en', 'en;q=1,de'])('Accept-Language: %s asks the same as en, de', async (value) => {
    const { get, calls } = room('Accept-Language')
    await get('/a', ['Accept-Language', 'en, de'])
    await get('/a', ['Accept-Language', value])
    expect(calls).toHaveLength(1)
  })

  test.each(['en', 'en, de;q=0.5', 'en, de, fr', 'en-GB, de'])('Accept-Language: %s asks something else', async (value) => {
    const { get, calls } = room('Accept-Language')
    await get('/a', ['Accept-Language', 'en, de'])
    await get('/a', ['Accept-Language', value])
    expect(calls).toHaveLength(2)
  })

  test('a caller that prefers one language to all others is served the stored answer in it', async () => {
    const { get, calls } = room('Accept-Language', ['Content-Language', 'de'])
    await get('/a', ['Accept-Language', 'en, de'])
    expect((await get('/a', ['Accept-Language', 'fr;q=0.5, de;q=1.0'])).source).toBe('cache')
    await get('/a', ['Accept-Language', 'fr, de'])
    await get('/a', ['Accept-Language', 'fr, de;q=0.9'])
    await get('/a', ['Accept-Language', 'de;q=0'])
    expect(calls).toHaveLength(4)
  })

  test('of several answers a request may be given, the most recent by date is used (§4)', async () => {
    const { get, origin, clock } = cached()
    const german = ['Cache-Control', 'max-age=60', 'Vary', 'Accept-Language', 'Content-Language', 'de']
    const at = (seconds: number) => ['Date', httpDate(clock.wallNow() + seconds * 1000)]
    origin(
      { fields: [...german, ...at(-5)], body: 'older' },
      { fields: [...german, ...at(-9)], body: 'oldest' },
      { fields: [...german, ...at(-1)], body: 'newest' }
    )
    for (const languages of ['de, en', 'de, fr', 'de, it']) await get('/a', ['Accept-Language', languages])
    expect(await textOf(await get('/a', ['Accept-Language', 'de, sv;q=0.5']))).toBe('newest')
  })

  test('configured fields separate answers although the provider forgets Vary', async () => {
    const { get, calls } = room('')
    const json = await textOf(await get('/a', ['Accept', 'application/json']))
    const pdf = await textOf(await get('/a', ['Accept', 'application/pdf']))
    expect(json).not.toBe(pdf)
    expect(await textOf(await get('/a', ['Accept', 'application/json']))).toBe(json)
    expect(calls).toHaveLength(2)
  })

  test('an answer that lacks the Vary of its siblings is selected by theirs', async () => {
    const made = cached()
    const fresh = ['Cache-Control', 'max-age=60']
    made.origin({ fields: [...fresh, 'Vary', 'Foo'] }, { fields: fresh })
    await made.get('/a', ['Foo', '1'])
    await made.get('/a', ['Foo', '2'])
    expect((await made.get('/a', ['Foo', '2'])).source).toBe('cache')
    expect((await made.get('/a', ['Foo', '3'])).source).toBe('upstream')
    expect((await made.get('/a', ['Foo', '1'])).source).toBe('cache')
  })

  test('an answer without Vary is dropped when a later one shows that the resource is negotiated', async () => {
    const made = cached()
    const fresh = ['Cache-Control', 'max-age=60']
    made.origin({ fields: fresh }, { fields: [...fresh, 'Vary', 'Foo'] })
    await made.get('/a', ['Foo', '1'])
    await made.get('/a', ['Foo', '1', 'Cache-Control', 'no-cache'])
    expect((await made.get('/a', ['Foo', '2'])).source).toBe('upstream')
    const other = cached()
    other.origin({ fields: fresh }, { fields: [...fresh, 'Vary', 'Foo'] })
    await other.get('/a', ['Accept', 'a/a'])
    await other.get('/a', ['Accept', 'b/b', 'Foo', '1'])
    expect((await other.get('/a', ['Accept', 'a/a'])).source).toBe('upstream')
  })

  test('a new answer takes the place of the one its request would have selected', async () => {
    const made = room('Foo')
    await made.get('/a', ['Foo', '1'])
    const text = await textOf(await made.get('/a', ['Foo', '1', 'Cache-Control', 'no-cache']))
    expect(await textOf(await made.get('/a', ['Foo', '1']))).toBe(text)
    expect(made.cache.entries).toBe(1)
  })

  test('an answer that depends on a hundred fields is not stored', async () => {
    const made = room(Array.from({ length: 100 }, (_, index) => `x-${index}`).join(', '))
    await made.get('/a')
    expect(made.cache.entries).toBe(0)
  })

  test('a caller that varies on purpose fills no more than its share', async () => {
    const made = room('Foo')
    for (let foo = 0; foo < 200; foo++) await made.get('/a', ['Foo', String(foo)])
    expect(made.cache.entries).toBe(32)
    expect((await made.get('/a', ['Foo', '199'])).source).toBe('cache')
  })
})

describe('identity', () => {
  test('nobody is given what was answered to another credential, tenant or user: any of them differing is a miss', async () => {
    const part = fc.oneof(
      fc.string({ maxLength: 6, unit: fc.constantFrom('a', ':', '1', ',', '\n', 'é', '/') }),
      fc.constantFrom('a', 'a:1', '1:a', 'H', 'G', '')
    )
    const who = fc.record({
      identity: part,
      authorization: fc.option(part, { nil: undefined }),
      cookie: fc.option(part, { nil: undefined }),
      tenant: fc.option(part, { nil: undefined }),
      target: part.map((path) => `/${path.replaceAll(/[\né]/g, '')}`)
    })
    await fc.assert(
      fc.asyncProperty(fc.array(who, { minLength: 2, maxLength: 12 }), async (callers) => {
        const made = cached({ vary: ['X-Tenant'], identityOf: (credential) => credential ?? '' })
        // the provider answers with all that the answer depends on
        made.origin((request) => ({
          fields: ['Cache-Control', 'max-age=60'],
          body: JSON.stringify([request.credential, request.fields, request.target])
        }))
        for (const { identity, authorization, cookie, tenant, target } of callers) {
          const fields = [
            ...(authorization === undefined ? [] : ['Authorization', authorization]),
            ...(cookie === undefined ? [] : ['Cookie', cookie]),
            ...(tenant === undefined ? [] : ['X-Tenant', tenant.trim()])
          ]
          const text = await textOf(await made.get(target, fields, { credential: identity }))
          const [gotIdentity, gotFields, gotTarget] = JSON.parse(text) as [string, string[], string]
          expect([gotIdentity, gotTarget]).toEqual([identity, target])
          const meant = (list: readonly string[]) => list.map((value) => value.replaceAll(/\s*,\s*/g, ',').trim())
          expect(meant(gotFields)).toEqual(meant(fields))
        }
      }),
      { numRuns: 150 }
    )
  })

  test('no identity can be written so that it reads like another one with another target', async () => {
    const made = cached()
    made.origin({ fields: ['Cache-Control', 'max-age=60'] })
    await made.get('/y0:/z', [], { credential: 'x' })
    expect((await made.get('/z', [], { credential: 'x0:/y' })).source).toBe('upstream')
  })

  test('concurrent callers of different identities, headers or methods never share a call', async () => {
    const made = cached()
    const gate = Promise.withResolvers<void>()
    made.origin(async (request) => {
      await gate.promise
      return { fields: ['Cache-Control', 'max-age=60'], body: `${request.credential} ${request.fields.join(' ')}` }
    })
    const asking = [
      made.get('/a', [], { credential: 'one' }),
      made.get('/a', [], { credential: 'two' }),
      made.get('/a', ['Authorization', 'x'], { credential: 'one' }),
      made.get('/a', ['Authorization', 'y'], { credential: 'one' }),
      made.get('/a', ['Accept', 'a/b'], { credential: 'one' }),
      made.send('HEAD', '/a', [], { credential: 'one' })
    ]
    await made.clock.advance(0)
    gate.resolve()
    await Promise.all(asking)
    expect(made.calls).toHaveLength(6)
  })

  test('a changed identity of the same credential is another cache', async () => {
    let identity = 'secret 1'
    const made = cached({ identityOf: () => identity })
    made.origin({ fields: ['Cache-Control', 'max-age=60'] })
    await made.get('/a', [], { credential: 'acme' })
    identity = 'secret 2'
    expect((await made.get('/a', [], { credential: 'acme' })).source).toBe('upstream')
  })
})
