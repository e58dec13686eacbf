import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { issued, opened } from '../../support/token-service.ts'

const folder = mkdtempSync(join(tmpdir(), 'attache-secret-'))
afterAll(() => rmSync(folder, { recursive: true }))

describe('a credential without a token', () => {
  test('static is a header field of any name', async () => {
    const one = await opened({ grant: 'static', header: 'X-Api-Key', value: 'k3y-value' })
    expect(await one.authorize()).toMatchObject({ fields: ['X-Api-Key', 'k3y-value'], generation: 0, secrets: ['k3y-value'] })
    expect(one.source.status().state).toBe('static')
  })

  test('a static value with its scheme is a secret without it too', async () => {
    const one = await opened({ grant: 'static', header: 'Authorization', value: 'Bearer l1ve-token' })
    expect((await one.authorize()).secrets).toEqual(['Bearer l1ve-token', 'l1ve-token'])
  })

  test('static may have a prefix, or stand in the query', async () => {
    expect((await (await opened({ grant: 'static', header: 'Authorization', prefix: 'ApiKey ', value: 'v4lue-1' })).authorize()).fields).toEqual([
      'Authorization',
      'ApiKey v4lue-1'
    ])
    const query = await (await opened({ grant: 'static', query: 'api_key', value: 'a b&c' })).authorize()
    expect(query).toMatchObject({ fields: [], query: 'api_key=a%20b%26c', secrets: ['a b&c', 'a%20b%26c'] })
  })

  test('basic is user and password in UTF-8', async () => {
    const { fields } = await (await opened({ grant: 'basic', username: 'user-1', password: 'pä:ss' })).authorize()
    expect(Buffer.from((fields[1] ?? '').slice(6), 'base64').toString()).toBe('user-1:pä:ss')
  })

  test('none is nothing', async () => {
    expect(await (await opened({ grant: 'none' })).authorize()).toMatchObject({ fields: [], query: undefined })
  })

  test('follows its file within a second, and a 401 for the old value is worth a replay then', async () => {
    const file = join(folder, 'key')
    writeFileSync(file, 'first-value\n', { mode: 0o600 })
    const one = await opened({ grant: 'static', header: 'X-Api-Key', value: `file:${file}` })
    const first = await one.authorize()
    const identity = one.source.identity('/')
    expect(await one.reject(first)).toBe(false)
    writeFileSync(`${file}.new`, 'second-value\n', { mode: 0o600 })
    renameSync(`${file}.new`, file)
    await one.clock.advance(1000)
    expect(await one.reject(first)).toBe(true)
    expect((await one.authorize()).fields[1]).toBe('second-value')
    expect(one.source.identity('/')).not.toBe(identity)
  })
})

describe('one credential with a token per organisation', () => {
  const tree = {
    grant: 'password',
    perKey: 'path[1]',
    variants: { '100': { username: 'key-100', password: 'key-100' }, '200': { username: 'key-200', password: 'key-200' } }
  }

  test('logs in once for each, as each', async () => {
    const one = await opened(tree)
    for (const target of ['/v1/100/a', '/v1/200/a', '/v1/100/b?x=1', '/v2/200']) await one.bearer(target)
    expect(one.service.asked.map((asked) => asked.parameters.get('username'))).toEqual(['key-100', 'key-200'])
    expect(await one.bearer('/v1/100/c')).toBe('Bearer token-1')
    expect(await one.bearer('/v1/200/c')).toBe('Bearer token-2')
    expect(one.source.status()).toMatchObject({ state: 'held', tokenRequests: 2 })
  })

  test('keeps what they see apart from the first request on', async () => {
    const one = await opened(tree)
    const before = one.source.identity('/v1/100/a')
    expect(before).not.toBe(one.source.identity('/v1/200/a'))
    await one.bearer('/v1/100/a')
    expect(one.source.identity('/v1/100/b')).toBe(before)
  })

  test('serves no other, and logs in for none', async () => {
    const one = await opened(tree)
    for (const target of ['/v1/300/a', '/v1', '/', '/v1//a', '/v1/__proto__/a', '/v1/constructor/']) expect(await one.bearer(target)).toBe('token-unavailable')
    expect(one.service.asked).toHaveLength(0)
  })

  test('serves no other even where the credential would do for it', async () => {
    const one = await opened({ perKey: 'path[0]', variants: { a: { scope: 'a' } } })
    expect([await one.bearer('/a'), await one.bearer('/b')]).toEqual(['Bearer token-1', 'token-unavailable'])
  })

  test('remembers each over a restart', async () => {
    const one = await opened(tree)
    await one.bearer('/v1/100/a')
    const again = await opened(tree, { clock: one.clock, service: one.service, store: one.store })
    expect(await again.bearer('/v1/100/a')).toBe('Bearer token-1')
  })

  test('without a list holds only so many at once, the one used longest ago goes', async () => {
    const one = await opened({ perKey: 'path[0]', maxKeys: 2 })
    for (const target of ['/a', '/b', '/a', '/c', '/a']) await one.bearer(target)
    expect(one.service.asked).toHaveLength(3)
    // The one that went is remembered by the store.
    expect(await one.bearer('/b')).toBe('Bearer token-2')
    expect(one.service.asked).toHaveLength(3)
  })
})

describe('what a token depends on', () => {
  test.each([
    ['client', { clientId: 'client-2' }],
    ['secret', { clientSecret: 'other' }],
    ['scope', { scope: 'other' }],
    ['a parameter', { params: { audience: 'other' } }],
    ['token URL', { tokenUrl: 'http://127.0.0.1:9/other' }],
    ['client authentication', { clientAuth: 'client_secret_post' }]
  ])('%s: another one is another token and another identity', async (_name, more) => {
    const one = await opened()
    await one.bearer()
    const other = await opened(more, { clock: one.clock, service: one.service, store: one.store })
    expect(await other.bearer()).toBe('Bearer token-2')
    expect(other.source.identity('/')).not.toBe(one.source.identity('/'))
  })

  test('the user: another one with the same password is another token', async () => {
    const tree = { grant: 'password', password: 'same' }
    const one = await opened({ ...tree, username: 'user-1' })
    await one.bearer()
    const other = await opened({ ...tree, username: 'user-2' }, { clock: one.clock, service: one.service, store: one.store })
    expect(await other.bearer()).toBe('Bearer token-2')
  })

  test('nothing else: two credentials of the same make are one token request', async () => {
    const one = await opened({ params: { a: '1', b: '2' } })
    await one.bearer()
    const other = await opened({ params: { b: '2', a: '1' }, minUse: 0.9, margin: '1s' }, { clock: one.clock, service: one.service, store: one.store })
    expect(await other.bearer()).toBe('Bearer token-1')
    expect(one.service.asked).toHaveLength(1)
  })

  test('and what was obtained lies sealed in the store', async () => {
    const one = await opened({ clientSecret: 'canary-client-secret' })
    one.service.answer = () => issued('canary-access-token')
    await one.bearer()
    for (const key of await one.store.keys('')) {
      const record = `${key}${(await one.store.get(key))?.toString('latin1')}`
      expect(record).not.toMatch(/canary|client-1/)
    }
    expect(JSON.stringify([one.source.status(), one.events])).not.toContain('canary')
  })
})
