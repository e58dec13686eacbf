import { describe, expect, test } from 'vitest'
import { Secret, type SecretSource } from '../../../src/exchange/secret.ts'
import { checkCredential, clientAuthOf } from '../../../src/tokens/check.ts'
import type { CredentialOptions } from '../../../src/tokens/options.ts'
import { credential } from '../../support/token-service.ts'

const secret = (value = 'x'): SecretSource => ({ reference: '${X}', read: () => new Secret(value) })
const { clientSecret: _secret, tokenUrl: _url, clientId: _id, ...nothing } = credential()

function findings(options: Partial<CredentialOptions>): string[] {
  return checkCredential('a', { ...nothing, ...options })
}
const token = { tokenUrl: 'https://t.example/token', clientId: 'c' }

describe('a credential', () => {
  test.each<[string, Partial<CredentialOptions>]>([
    ['client secret', { grant: 'client_credentials', ...token, clientSecret: secret() }],
    ['key', { grant: 'client_credentials', issuer: 'https://i.example', clientId: 'c', key: secret() }],
    ['password', { grant: 'password', ...token, clientSecret: secret(), username: secret(), password: secret() }],
    ['password of a public client', { grant: 'password', ...token, username: secret(), password: secret() }],
    ['refresh token', { grant: 'refresh_token', ...token, refreshToken: secret() }],
    ['jwt bearer', { grant: 'jwt_bearer', ...token, key: secret() }],
    ['token exchange', { grant: 'token_exchange', ...token, clientSecret: secret(), subjectToken: secret() }],
    ['static header', { grant: 'static', header: 'X-Api-Key', value: secret() }],
    ['static query', { grant: 'static', query: 'key', value: secret() }],
    ['basic', { grant: 'basic', username: secret(), password: secret() }],
    ['mtls', { grant: 'mtls', key: secret(), certificate: secret() }],
    ['none', { grant: 'none' }],
    ['loopback in the clear', { grant: 'client_credentials', ...token, tokenUrl: 'http://[::1]:1/t', clientSecret: secret() }],
    ['an issuer that is only an identifier', { grant: 'client_credentials', ...token, issuer: 'urn:x', clientSecret: secret() }],
    [
      'a secret per key',
      { grant: 'password', ...token, perKey: 'path[1]', variants: { a: { clientSecret: secret(), username: secret(), password: secret() } } }
    ]
  ])('is complete: %s', (_name, options) => {
    expect(findings(options)).toEqual([])
  })

  test.each<[Partial<CredentialOptions>, string[]]>([
    [{ grant: 'client_credentials', clientSecret: secret() }, ['needs tokenUrl or issuer', 'needs clientId for grant client_credentials']],
    [{ grant: 'client_credentials', ...token }, ['needs clientSecret or key: client_credentials proves who the client is (RFC 6749 §4.4)']],
    [{ grant: 'client_credentials', ...token, clientAuth: 'client_secret_post' }, ['needs clientSecret for client_secret_post']],
    [{ grant: 'client_credentials', ...token, clientAuth: 'private_key_jwt' }, ['needs key for private_key_jwt']],
    [
      { grant: 'client_credentials', ...token, clientAuth: 'tls_client_auth', key: { ...secret(), reference: 'file:/k.pem' } },
      ['needs certificate, or a key in PKCS#12 that contains it']
    ],
    [{ grant: 'password', ...token, clientSecret: secret() }, ['needs username for grant password', 'needs password for grant password']],
    [{ grant: 'refresh_token', ...token }, ['needs clientSecret, key, refreshToken or stateSecret: stored tokens are sealed with one of them']],
    [{ grant: 'jwt_bearer', ...token }, ['needs key for grant jwt_bearer']],
    [{ grant: 'static', value: secret() }, ['needs header or query: where the value goes']],
    [{ grant: 'static', header: 'A', query: 'b', value: secret() }, ['has both header and query, the value goes in one of them']],
    [{ grant: 'basic' }, ['needs username for grant basic', 'needs password for grant basic']],
    [{ grant: 'none', variants: { a: {} } }, ['variants needs perKey: where the key is found']]
  ])('says what it lacks: %#', (options, expected) => {
    expect(findings(options)).toEqual(expected)
  })

  test.each([
    ['http://t.example/token', 'tokenUrl must begin with https: (http: is for loopback only)'],
    ['http://localhost.evil.example/', 'tokenUrl must begin with https: (http: is for loopback only)'],
    ['http://127.0.0.1.evil.example/', 'tokenUrl must begin with https: (http: is for loopback only)'],
    ['ftp://t.example/', 'tokenUrl must begin with https:'],
    ['t.example/token', 'tokenUrl is not a URL'],
    ['https://u:p@t.example/', 'tokenUrl must not contain a user or password'],
    ['https://t.example/#x', 'tokenUrl must not contain a fragment']
  ])('sends no secret to %s', (tokenUrl, finding) => {
    expect(findings({ grant: 'client_credentials', clientId: 'c', clientSecret: secret(), tokenUrl })).toEqual([finding])
  })

  test.each([
    'https://app.example/callback',
    'http://app.example/callback',
    'http://127.0.0.1.evil.example/callback',
    'http://u@127.0.0.1/callback',
    'http://127.0.0.1',
    'http://127.0.0.1/callback#x',
    'callback'
  ])('lets no browser come back to %s', (redirectUri) => {
    const options = { grant: 'refresh_token', ...token, clientSecret: secret(), authorizationUrl: 'https://t.example/go' } as const
    expect(findings({ ...options, redirectUri })).toEqual([expect.stringMatching(/^redirectUri must be http: on loopback with a path/)])
    expect(findings({ ...options, redirectUri: 'http://localhost:1/back?tenant=1' })).toEqual([])
    expect(findings({ ...options, authorizationUrl: 'http://t.example/go' })).toEqual(['authorizationUrl must begin with https: (http: is for loopback only)'])
  })

  test.each([
    [{ lifetime: 121_000 }, ['assertion.lifetime must be at most 120s']],
    [{ lifetime: 0 }, ['assertion.lifetime must be at least 1s']],
    [{ alg: 'HS256' as const }, ['assertion.alg HS… is for client_secret_jwt']]
  ])('keeps assertions short and of their kind: %j', (assertion, expected) => {
    const key = { ...secret(), reference: 'file:/k.pem' }
    expect(findings({ grant: 'client_credentials', ...token, key, assertion: { ...nothing.assertion, ...assertion } })).toEqual(expected)
  })

  test('authenticates by what it has', () => {
    expect(clientAuthOf({ ...nothing, clientSecret: secret() })).toBe('client_secret_basic')
    expect(clientAuthOf({ ...nothing, key: secret() })).toBe('private_key_jwt')
    expect(clientAuthOf({ ...nothing, grant: 'jwt_bearer', key: secret() })).toBe('none')
    expect(clientAuthOf(nothing)).toBe('none')
  })
})
