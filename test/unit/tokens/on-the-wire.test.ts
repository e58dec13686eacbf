import { createHash, createPublicKey, generateKeyPairSync, verify } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { calculateJwkThumbprint, decodeJwt, decodeProtectedHeader, jwtVerify } from 'jose'
import { describe, expect, onTestFinished, test } from 'vitest'
import { testClock } from '../../support/clock.ts'
import { credential, issued, json, opened, tokenService, type Asked, type OpenedCredential } from '../../support/token-service.ts'

const RSA = generateKeyPairSync('rsa', { modulusLength: 2048 })
const EC = generateKeyPairSync('ec', { namedCurve: 'P-384' })
const pem = (pair: { privateKey: { export(options: { format: 'pem'; type: 'pkcs8' }): string | Buffer } }): string =>
  pair.privateKey.export({ format: 'pem', type: 'pkcs8' }).toString()

async function asked(tree: Readonly<Record<string, unknown>>): Promise<Asked> {
  const one = await opened(tree)
  await one.bearer()
  const [first] = one.service.asked
  if (first === undefined) throw new Error('nothing was asked')
  return first
}

function assertionIn(one: Asked, parameter = 'client_assertion'): string {
  return one.parameters.get(parameter) ?? ''
}

describe('a token request', () => {
  test('is a form posted with our name, and nothing else', async () => {
    const one = await asked({ clientAuth: 'client_secret_post', scope: 'a b' })
    expect(one).toMatchObject({
      method: 'POST',
      url: 'http://127.0.0.1:9/token',
      body: 'grant_type=client_credentials&scope=a+b&client_id=client-1&client_secret=client-secret-1'
    })
    expect(one.headers).toEqual({ accept: 'application/json', 'content-type': 'application/x-www-form-urlencoded', 'user-agent': 'attache/1.2.3' })
  })

  test('bears further parameters, repeated where they are lists', async () => {
    const one = await asked({ params: { audience: 'https://api.example/', resource: ['urn:a', 'urn:b'] } })
    expect(one.body).toBe('grant_type=client_credentials&audience=https%3A%2F%2Fapi.example%2F&resource=urn%3Aa&resource=urn%3Ab')
  })

  test('is JSON where the service wants that', async () => {
    const one = await asked({ clientAuth: 'client_secret_post', bodyFormat: 'json', params: { audience: 'x', resource: ['a', 'b'] } })
    expect(one.headers['content-type']).toBe('application/json')
    expect(JSON.parse(one.body ?? '')).toEqual({
      grant_type: 'client_credentials',
      audience: 'x',
      resource: ['a', 'b'],
      client_id: 'client-1',
      client_secret: 'client-secret-1'
    })
  })

  test('has its parameters in the query where the service insists', async () => {
    const one = await asked({ tokenUrl: 'http://127.0.0.1:9/token?realm=x', clientAuth: 'client_secret_post', paramLocation: 'query' })
    expect(one.url).toBe('http://127.0.0.1:9/token?realm=x&grant_type=client_credentials&client_id=client-1&client_secret=client-secret-1')
    expect(one.body).toBe('')
  })
})

describe('client_secret_basic', () => {
  const SECRET = 'p:a+s%s ä'
  function decoded(one: Asked): string {
    return Buffer.from((one.headers['authorization'] ?? '').replace('Basic ', ''), 'base64').toString()
  }

  test('encodes id and secret as a form before base64, and no more than that takes (RFC 6749 §2.3.1)', async () => {
    expect(decoded(await asked({ clientSecret: SECRET }))).toBe('client-1:p%3Aa%2Bs%25s+%C3%A4')
  })

  test('leaves them as they are with basicEncoding raw', async () => {
    expect(decoded(await asked({ clientSecret: SECRET, basicEncoding: 'raw' }))).toBe(`client-1:${SECRET}`)
  })

  test('is never sent together with the secret in the body', async () => {
    expect((await asked({ clientSecret: SECRET })).body).toBe('grant_type=client_credentials')
  })
})

describe('private_key_jwt', () => {
  const tree = { key: pem(RSA), issuer: 'https://issuer.example', tokenUrl: 'http://127.0.0.1:9/token' }

  test('proves the client with an assertion that verifies, for the issuer, for a minute', async () => {
    const one = await asked(tree)
    const { payload, protectedHeader } = await jwtVerify(assertionIn(one), RSA.publicKey, { currentDate: new Date(Date.UTC(2026, 5, 1)) })
    expect(payload).toEqual({
      iss: 'client-1',
      sub: 'client-1',
      aud: 'https://issuer.example',
      iat: 1780272000,
      exp: 1780272060,
      jti: expect.stringMatching(/^[0-9a-f-]{36}$/)
    })
    expect(protectedHeader).toEqual({ alg: 'RS256', typ: 'JWT', kid: expect.stringMatching(/^[\w-]{43}$/) })
    expect([one.parameters.get('client_id'), one.parameters.get('client_assertion_type')]).toEqual([
      'client-1',
      'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'
    ])
    expect(one.headers['authorization']).toBeUndefined()
    expect(one.body).not.toContain('client_secret')
  })

  test('makes a fresh assertion for every attempt', async () => {
    const one = await opened(tree)
    one.service.answer = () => json(500, {})
    for (let i = 0; i < 5; i++) {
      await one.bearer()
      await one.clock.advance(61_000)
    }
    const jtis = one.service.asked.map((each) => decodeJwt(assertionIn(each)).jti)
    expect(new Set(jtis).size).toBe(5)
  })

  test('can be told everything: algorithm, type, audience, lifetime, claims', async () => {
    const one = await asked({
      ...tree,
      assertion: {
        alg: 'PS384',
        typ: 'client-authentication+jwt',
        kid: 'my-key',
        audience: 'tokenUrl',
        audienceForm: 'array',
        lifetime: '20s',
        backdate: '5s',
        include: ['nbf'],
        claims: { resource: ['a'] }
      }
    })
    const { payload, protectedHeader } = await jwtVerify(assertionIn(one), RSA.publicKey, { currentDate: new Date(Date.UTC(2026, 5, 1)) })
    expect(protectedHeader).toEqual({ alg: 'PS384', typ: 'client-authentication+jwt', kid: 'my-key' })
    expect(payload).toMatchObject({ aud: ['http://127.0.0.1:9/token'], iat: 1780271995, nbf: 1780271995, exp: 1780272015, resource: ['a'] })
  })

  test('chooses the algorithm by the key', async () => {
    expect(decodeProtectedHeader(assertionIn(await asked({ ...tree, key: pem(EC) }))).alg).toBe('ES384')
    expect(decodeProtectedHeader(assertionIn(await asked({ clientAuth: 'client_secret_jwt' }))).alg).toBe('HS256')
  })

  test('takes a JWK with its own kid', async () => {
    const jwk = JSON.stringify({ ...RSA.privateKey.export({ format: 'jwk' }), kid: 'from-jwk' })
    expect(decodeProtectedHeader(assertionIn(await asked({ ...tree, key: jwk }))).kid).toBe('from-jwk')
  })

  test('is named by its thumbprint where that is asked for (RFC 7638)', async () => {
    const key = JSON.stringify({ ...RSA.privateKey.export({ format: 'jwk' }), kid: 'from-jwk' })
    const { kid } = decodeProtectedHeader(assertionIn(await asked({ ...tree, key, assertion: { kid: 'thumbprint' } })))
    expect(kid).toBe(await calculateJwkThumbprint(RSA.publicKey.export({ format: 'jwk' })))
  })

  test('does not start with a key that cannot sign as configured', () => {
    const ed25519 = pem(generateKeyPairSync('ed25519'))
    for (const [key, alg] of [
      [pem(RSA), 'ES256'],
      [pem(EC), 'ES256'],
      [pem(EC), 'PS256'],
      [ed25519, 'RS256']
    ]) {
      expect(() => credential({ ...tree, key, assertion: { alg } })).toThrow(`key cannot sign with ${alg}, see assertion.alg`)
    }
    expect(() => credential({ ...tree, key: ed25519 })).toThrow('of a kind that signs no assertions')
  })

  test('says what is wrong when the key is replaced by one of another kind', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'attache-key-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    writeFileSync(join(folder, 'key.pem'), pem(RSA), { mode: 0o600 })
    const one = await opened({ ...tree, key: `file:${join(folder, 'key.pem')}`, assertion: { alg: 'PS256' } })
    writeFileSync(join(folder, 'key.pem'), pem(EC))
    await one.clock.advance(2_000)
    await expect(one.authorize()).rejects.toMatchObject({ code: 'credential-rejected', message: expect.stringMatching(/cannot sign with PS256/) })
    expect(one.service.asked).toHaveLength(0)
  })

  test('corrects its clock by the service’s once, warns, and is right from then on', async () => {
    const clock = testClock()
    const service = tokenService(clock)
    const ahead = 5 * 60_000
    service.answer = (each, count) => {
      const date = ['date', new Date(clock.wallNow() + ahead).toUTCString()]
      const { iat = 0 } = decodeJwt(assertionIn(each))
      const right = Math.abs(iat * 1000 - (clock.wallNow() + ahead)) < 10_000
      return right ? { ...issued(`token-${count}`), fields: date } : json(401, { error: 'invalid_client' }, date)
    }
    const one = await opened(tree, { clock, service })
    expect(await one.bearer()).toBe('Bearer token-2')
    expect(one.events).toContainEqual(expect.objectContaining({ kind: 'warning', message: expect.stringMatching(/differ by (?:299|300|301) seconds/) }))
    await clock.advance(3_600_000)
    expect(await one.bearer()).toBe('Bearer token-3')
    expect(one.events.filter((event) => event.kind === 'warning')).toHaveLength(1)
  })
})

describe('jwt_bearer', () => {
  test('makes the assertion the grant, without client authentication (Maskinporten)', async () => {
    const one = await asked({
      grant: 'jwt_bearer',
      key: pem(RSA),
      tokenUrl: 'http://127.0.0.1:9/token',
      scope: 'ks:a ks:b',
      assertion: { kid: 'registered', audience: 'https://maskinporten.example/', lifetime: '120s', claims: { resource: ['https://api.example'] } }
    })
    expect([...one.parameters.keys()].toSorted()).toEqual(['assertion', 'grant_type', 'scope'])
    expect(one.parameters.get('grant_type')).toBe('urn:ietf:params:oauth:grant-type:jwt-bearer')
    const claims = decodeJwt(assertionIn(one, 'assertion'))
    expect(claims).toMatchObject({ iss: 'client-1', aud: 'https://maskinporten.example/', scope: 'ks:a ks:b', resource: ['https://api.example'] })
    expect(claims.sub).toBeUndefined()
    expect((claims.exp ?? 0) - (claims.iat ?? 0)).toBe(120)
  })
})

describe('token_exchange', () => {
  test('sends the subject token and its type (RFC 8693)', async () => {
    const one = await asked({ grant: 'token_exchange', subjectToken: 'subject-1', params: { audience: 'x' } })
    expect(Object.fromEntries(one.parameters)).toEqual({
      grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
      subject_token: 'subject-1',
      subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      audience: 'x'
    })
  })
})

describe('a token that was exchanged', () => {
  test('does not outlive the one it was exchanged for', async () => {
    const endsAt = Date.UTC(2026, 5, 1) + 600_000
    const subject = `${Buffer.from('{"alg":"none"}').toString('base64url')}.${Buffer.from(JSON.stringify({ exp: endsAt / 1000 })).toString('base64url')}.`
    const one = await opened({ grant: 'token_exchange', subjectToken: subject })
    await one.bearer()
    expect(one.source.status().expiresAt).toBe(endsAt)
    await one.clock.advance(600_000)
    await expect(one.authorize()).rejects.toMatchObject({ code: 'credential-rejected', message: expect.stringMatching(/subjectToken has expired/) })
    expect(one.service.asked).toHaveLength(1)
  })
})

describe('DPoP', () => {
  type Proof = { header: Record<string, unknown>; payload: Record<string, unknown> }
  const bound = (count: number): ReturnType<typeof issued> => issued(`token-${count}`, { token_type: 'DPoP' })

  function proofIn(text: string | undefined): Proof {
    const [header = '', payload = '', signature = ''] = (text ?? '').split('.')
    const parsed: Proof = { header: JSON.parse(Buffer.from(header, 'base64url').toString()), payload: JSON.parse(Buffer.from(payload, 'base64url').toString()) }
    const key = createPublicKey({ key: parsed.header['jwk'] as Record<string, string>, format: 'jwk' })
    expect(verify('sha256', Buffer.from(`${header}.${payload}`), { key, dsaEncoding: 'ieee-p1363' }, Buffer.from(signature, 'base64url'))).toBe(true)
    return parsed
  }

  async function bound1(): Promise<OpenedCredential> {
    const one = await opened({ dpop: true })
    one.service.answer = (_asked, count) => bound(count)
    return one
  }

  test('proves the key on the token request and on every call, each time anew, with the token’s hash on calls', async () => {
    const one = await bound1()
    const first = proofIn((await one.authorize('/a?q=1')).fields[3])
    const second = proofIn((await one.authorize('/a?q=1')).fields[3])
    const atService = proofIn(one.service.asked[0]?.headers['dpop'])
    expect(first.payload).toMatchObject({ htm: 'GET', htu: 'https://api.example/a', ath: createHash('sha256').update('token-1').digest('base64url') })
    expect(first.payload['jti']).not.toBe(second.payload['jti'])
    expect(atService.payload).toMatchObject({ htm: 'POST', htu: 'http://127.0.0.1:9/token' })
    expect(atService.payload['ath']).toBeUndefined()
    expect(atService.header).toEqual({ alg: 'ES256', typ: 'dpop+jwt', jwk: first.header['jwk'] })
    expect(Object.keys(first.header['jwk'] as object).toSorted()).toEqual(['crv', 'kty', 'x', 'y'])
    expect((await one.authorize()).fields.slice(0, 3)).toEqual(['Authorization', 'DPoP token-1', 'DPoP'])
  })

  test('learns the token service’s nonce with one repeated request', async () => {
    const one = await opened({ dpop: true })
    one.service.answer = (each, count) => {
      const nonce = proofIn(each.headers['dpop']).payload['nonce']
      return nonce === 'n1' ? bound(count) : json(400, { error: 'use_dpop_nonce' }, ['DPoP-Nonce', 'n1'])
    }
    expect(await one.bearer()).toBe('DPoP token-2')
  })

  test('learns the API’s nonce without another token', async () => {
    const one = await bound1()
    const first = await one.authorize()
    expect(await one.reject(first, ['WWW-Authenticate', 'DPoP error="use_dpop_nonce"', 'DPoP-Nonce', 'api-nonce'])).toBe(true)
    expect(proofIn((await one.authorize()).fields[3]).payload['nonce']).toBe('api-nonce')
    expect(one.service.asked).toHaveLength(1)
  })

  test('keeps its key with the token over a restart', async () => {
    const one = await bound1()
    const before = proofIn((await one.authorize()).fields[3])
    const again = await opened({ dpop: true }, { clock: one.clock, service: one.service, store: one.store })
    expect(proofIn((await again.authorize()).fields[3]).header['jwk']).toEqual(before.header['jwk'])
    expect(one.service.asked).toHaveLength(1)
  })

  test('never falls back to a bearer token', async () => {
    const one = await opened({ dpop: true })
    expect(await one.bearer()).toBe('token-unavailable')
  })
})

describe('discovery', () => {
  const ISSUER = 'http://127.0.0.1:9/realm'
  const WELL_KNOWN = 'http://127.0.0.1:9/.well-known/oauth-authorization-server/realm'
  const OPENID = 'http://127.0.0.1:9/realm/.well-known/openid-configuration'

  async function discovering(documents: Readonly<Record<string, unknown>>, more: Readonly<Record<string, unknown>> = {}): Promise<OpenedCredential> {
    const one = await opened({ issuer: ISSUER, ...more })
    one.service.answer = (each, count) => {
      if (each.method === 'POST') return issued(`token-${count}`)
      return each.url in documents ? json(200, documents[each.url]) : json(404, {})
    }
    return one
  }

  test('asks the issuer where its token endpoint is, once', async () => {
    const one = await discovering({ [WELL_KNOWN]: { issuer: ISSUER, token_endpoint: 'http://127.0.0.1:9/realm/token' } })
    expect(await one.bearer()).toBe('Bearer token-2')
    await one.clock.advance(3_600_000)
    expect(await one.bearer()).toBe('Bearer token-3')
    expect(one.service.asked.map((each) => `${each.method} ${each.url}`)).toEqual([
      `GET ${WELL_KNOWN}`,
      'POST http://127.0.0.1:9/realm/token',
      'POST http://127.0.0.1:9/realm/token'
    ])
  })

  test('knows OpenID Connect’s place for it too', async () => {
    const one = await discovering({ [OPENID]: { issuer: ISSUER, token_endpoint: 'http://127.0.0.1:9/realm/token' } })
    expect(await one.bearer()).toBe('Bearer token-3')
  })

  test('takes the endpoint on another host only where that is listed', async () => {
    const documents = { [WELL_KNOWN]: { issuer: ISSUER, token_endpoint: 'https://tokens.example/token' } }
    expect(await (await discovering(documents)).bearer()).toBe('token-unavailable')
    const listed = await discovering(documents, { tokenHosts: ['tokens.example'] })
    expect(await listed.bearer()).toBe('Bearer token-2')
  })

  test.each([
    ['another issuer’s', { issuer: 'http://127.0.0.1:9/other', token_endpoint: 'http://127.0.0.1:9/realm/token' }, /another issuer/],
    ['without an endpoint', { issuer: ISSUER }, /set tokenUrl/],
    ['with an endpoint in the clear', { issuer: ISSUER, token_endpoint: 'http://tokens.example/token' }, /not https/],
    ['no metadata at all', 'hello', /cannot be read/]
  ])('refuses metadata that are %s, and sends no secret', async (_name, document, message) => {
    const one = await discovering({ [WELL_KNOWN]: document })
    await expect(one.authorize()).rejects.toMatchObject({ code: 'token-unavailable', message: expect.stringMatching(message) })
    expect(one.service.asked.every((each) => each.method === 'GET')).toBe(true)
  })
})
