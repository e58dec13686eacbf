import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { calculateJwkThumbprint } from 'jose'
import { afterEach, describe, expect, test } from 'vitest'
import { systemClock } from '../../src/exchange/clock.ts'
import { memoryStore } from '../../src/state/memory.ts'
import type { Store } from '../../src/state/store.ts'
import { openCredentials } from '../../src/tokens/credentials.ts'
import type { Authorization, Credentials, TokenSource } from '../../src/tokens/source.ts'
import { tokenFetch } from '../../src/transport/token-fetch.ts'
import { authorizationServer, type AuthorizationServer } from '../support/oidc.ts'
import { reports } from '../support/policy-call.ts'
import { attempt, credential, unauthorized } from '../support/token-service.ts'

const opened: { close(): Promise<void> }[] = []
afterEach(async () => {
  await Promise.all(opened.splice(0).map((one) => one.close()))
})

async function serving(...[settings]: Parameters<typeof authorizationServer>): Promise<AuthorizationServer> {
  const server = await authorizationServer(settings)
  opened.push(server)
  return server
}

type Client = { readonly source: TokenSource; readonly store: Store; authorize(): Promise<Authorization>; token(): Promise<string> }

async function client(tree: Readonly<Record<string, unknown>>, store?: Store): Promise<Client> {
  const clock = systemClock()
  const kept = store ?? memoryStore({ clock })
  const { report } = reports()
  const credentials: Credentials = await openCredentials(
    { a: credential(tree) },
    { clock, random: () => 0, report, store: kept, version: '1.2.3', tokenFetch: tokenFetch() }
  )
  opened.push(credentials)
  const source = credentials.get('a')
  if (source === undefined) throw new Error('not opened')
  const authorize = async (): Promise<Authorization> => source.authorize(attempt(), new AbortController().signal)
  return { source, store: kept, authorize, token: async () => ((await authorize()).fields[1] ?? '').replace(/^\w+ /, '') }
}

type Pair = { readonly privateKey: KeyObject; readonly publicKey: KeyObject }
const SECRET = 'a secret: 50% + more / of [this]'
const RSA: Pair = generateKeyPairSync('rsa', { modulusLength: 2048 })
const EC: Pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const pem = (pair: Pair): string => pair.privateKey.export({ format: 'pem', type: 'pkcs8' }).toString()
/** As `attache keys new` prints it for the provider: with the thumbprint for a key id. */
async function publicJwks(pair: Pair): Promise<{ keys: unknown[] }> {
  const jwk = pair.publicKey.export({ format: 'jwk' })
  return { keys: [{ ...jwk, kid: await calculateJwkThumbprint(jwk), use: 'sig' }] }
}

describe('an independent authorization server accepts', () => {
  test.each([
    ['client_secret_basic', {}],
    ['client_secret_post', {}],
    ['client_secret_jwt', { token_endpoint_auth_signing_alg: 'HS256' }]
  ])('%s with a secret of awkward characters', async (method, more) => {
    const server = await serving({ clients: [{ client_id: 'client:1 +%', client_secret: SECRET, token_endpoint_auth_method: method, ...more }] })
    const one = await client({ tokenUrl: server.tokenUrl, issuer: server.issuer, clientId: 'client:1 +%', clientSecret: SECRET, clientAuth: method })
    expect(await server.introspect(await one.token())).toMatchObject({ active: true, client_id: 'client:1 +%', token_type: 'Bearer' })
    expect(server.tokenRequests).toEqual(['client_credentials'])
  })

  test.each([
    ['RSA', RSA, {}, {}],
    ['RSA with PSS', RSA, { alg: 'PS256', typ: 'client-authentication+jwt' }, { token_endpoint_auth_signing_alg: 'PS256' }],
    ['EC', EC, {}, { token_endpoint_auth_signing_alg: 'ES256' }]
  ])('private_key_jwt with %s, the endpoint found by discovery', async (_name, pair, assertion, more) => {
    const server = await serving({ clients: [{ client_id: 'c', token_endpoint_auth_method: 'private_key_jwt', jwks: await publicJwks(pair), ...more }] })
    const one = await client({ issuer: server.issuer, clientId: 'c', key: pem(pair), assertion })
    expect(await server.introspect(await one.token())).toMatchObject({ active: true, client_id: 'c' })
  })

  test('one token for its whole life, over restarts', async () => {
    const server = await serving({ clients: [{ client_id: 'c', client_secret: SECRET }] })
    let one = await client({ tokenUrl: server.tokenUrl, clientId: 'c', clientSecret: SECRET })
    const token = await one.token()
    for (let restart = 0; restart < 5; restart++) {
      one = await client({ tokenUrl: server.tokenUrl, clientId: 'c', clientSecret: SECRET }, one.store)
      expect(await one.token()).toBe(token)
    }
    expect(server.tokenRequests).toHaveLength(1)
  })
})

describe('an independent authorization server refuses', () => {
  test('a wrong secret once, and is not asked again', async () => {
    const server = await serving({ clients: [{ client_id: 'c', client_secret: SECRET }] })
    const one = await client({ tokenUrl: server.tokenUrl, clientId: 'c', clientSecret: 'wrong' })
    for (let i = 0; i < 3; i++) await expect(one.token()).rejects.toMatchObject({ code: 'credential-rejected' })
    expect(server.tokenRequests).toEqual(['client_credentials ! invalid_client'])
  })

  test('an unregistered key once, and is not asked again', async () => {
    const server = await serving({ clients: [{ client_id: 'c', token_endpoint_auth_method: 'private_key_jwt', jwks: await publicJwks(RSA) }] })
    const other = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const one = await client({ issuer: server.issuer, clientId: 'c', key: pem(other) })
    for (let i = 0; i < 3; i++) await expect(one.token()).rejects.toMatchObject({ code: 'credential-rejected' })
    expect(server.tokenRequests).toEqual(['client_credentials ! invalid_client'])
  })
})

describe('an independent authorization server that rotates refresh tokens', () => {
  test('sees each of them once, over restarts and forced renewals', async () => {
    const server = await serving({
      clients: [
        {
          client_id: 'c',
          client_secret: SECRET,
          grant_types: ['refresh_token', 'authorization_code'],
          redirect_uris: ['https://app.example/cb'],
          response_types: ['code']
        }
      ]
    })
    const tree = { grant: 'refresh_token', tokenUrl: server.tokenUrl, clientId: 'c', clientSecret: SECRET, refreshToken: await server.signIn('c') }
    let one = await client(tree)
    const tokens = new Set<string>()
    for (let round = 0; round < 4; round++) {
      tokens.add(await one.token())
      // the operator's renewal stands for the end of the token's life
      await one.source.renew?.()
      one = await client(tree, one.store)
    }
    expect(tokens.size).toBe(4)
    expect(server.reused).toEqual([])
    expect(server.tokenRequests).toEqual(Array.from({ length: 5 }, () => 'refresh_token'))
    expect(await server.introspect(await one.token())).toMatchObject({ active: true, sub: 'user-1' })
  })
})

describe('an independent authorization server that wants DPoP', () => {
  test.each([false, true])('binds the token to our key (nonces wanted: %s)', async (dpopNonces) => {
    const server = await serving({ dpopNonces, clients: [{ client_id: 'c', client_secret: SECRET, dpop_bound_access_tokens: true }] })
    const one = await client({ tokenUrl: server.tokenUrl, clientId: 'c', clientSecret: SECRET, dpop: true })
    const authorization = await one.authorize()
    expect(authorization.fields[1]).toMatch(/^DPoP /)
    expect(await server.introspect(await one.token())).toMatchObject({ active: true, token_type: 'DPoP', cnf: { jkt: expect.stringMatching(/^[\w-]{43}$/) } })
    expect(server.tokenRequests.at(-1)).toBe('client_credentials')
    expect(server.tokenRequests).toHaveLength(dpopNonces ? 2 : 1)
    expect(
      await one.source.rejected(attempt(), authorization, unauthorized(['WWW-Authenticate', 'DPoP error="insufficient_scope"']), new AbortController().signal)
    ).toBe(false)
  })
})
