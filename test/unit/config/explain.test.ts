import { describe, expect, test } from 'vitest'
import { explain } from '../../../src/config/explain.ts'
import type { Config } from '../../../src/config/schema.ts'
import { PIPELINE } from '../../../src/pipeline.ts'
import { loaded } from './written.ts'

let known: Config | undefined

function explained(method: string, path: string) {
  known ??= loaded(YAML).config
  return explain(known, method, path)
}

const YAML = `
credentials:
  app: { grant: client_credentials, tokenUrl: "http://127.0.0.1:9/t", clientId: a, clientSecret: CANARY }
  user: { grant: static, header: X-User, value: CANARY }
upstreams:
  api:
    baseUrl: http://127.0.0.1:9/base/
    credential: [{ match: "/client/**", credential: app }, { match: "GET /me", credential: user }]
    retry: { routes: ["POST /client/*/fetch"], never: ["PUT /client/sms"] }
    cache: { rules: [{ match: "GET /client/articles/**", ttl: 10m }] }
    leases: [{ match: /client/secret, expires: sas }]
    operations: { allow: ["/client/**", "/me", "GET /open"] }
  plain: { baseUrl: "http://127.0.0.1:9" }
`

function policy(method: string, path: string, name: string) {
  return explained(method, path).policies?.find((each) => each.policy === name)
}

describe('explain', () => {
  test('names every policy in the order of the pipeline', () => {
    expect(explained('GET', '/api/me').policies?.map((each) => each.policy)).toEqual([...PIPELINE])
  })

  test('says where a call would go, query included', () => {
    expect(explained('GET', '/api/client/a%2Fb?x=1&y').url).toBe('http://127.0.0.1:9/base/client/a%2Fb?x=1&y')
    expect(explained('GET', '/plain').url).toBe('http://127.0.0.1:9/')
    expect(explained('GET', 'http://localhost:7600/plain/x').url).toBe('http://127.0.0.1:9/x')
  })

  test('says which credential serves, and why', () => {
    expect(explained('GET', '/api/client/x').credential).toEqual({ name: 'app', grant: 'client_credentials', why: 'the first entry that matches: /client/**' })
    expect(explained('GET', '/api/me').credential).toMatchObject({ name: 'user', grant: 'static' })
    expect(explained('POST', '/api/me').credential).toEqual({ name: 'none', why: 'no entry of the list with a credential matches' })
    expect(explained('GET', '/plain/x').credential).toEqual({ name: 'none', why: 'the upstream has none; Authorization of the caller passes' })
  })

  test('says what is repeated and why', () => {
    expect(policy('GET', '/api/me', 'retry')?.does).toBe('repeats it: GET is idempotent')
    expect(policy('POST', '/api/client/7/fetch', 'retry')?.does).toBe('repeats it: declared safe under retry.routes')
    expect(policy('PUT', '/api/client/sms', 'retry')?.does).toBe('sends it once: listed under retry.never')
    expect(policy('POST', '/api/client/x', 'retry')?.does).toMatch(/^sends it once, unless/)
  })

  test('gives the cache key of what can be stored, and the rule that lends freshness', () => {
    expect(explained('GET', '/api/client/articles/7').cacheKey).toEqual([
      'GET http://127.0.0.1:9/base/client/articles/7',
      'identity of app',
      'Accept of the request',
      'Accept-Language of the request'
    ])
    expect(policy('GET', '/api/client/articles/7', 'cache')).toMatchObject({
      does: expect.stringContaining('GET /client/articles/**'),
      settings: { ttl: '10m' }
    })
    expect(explained('POST', '/api/client/articles/7').cacheKey).toBeUndefined()
  })

  test('says which answers are kept as secrets on loan', () => {
    expect(policy('GET', '/api/client/secret', 'leases')?.settings).toEqual({ match: '/client/secret', share: 0.9, expires: 'sas' })
    expect(policy('PUT', '/api/client/secret', 'leases')).toMatchObject({ does: expect.stringContaining('passes it on'), settings: {} })
  })

  test('names the operation by a template of the config, never by the path', () => {
    expect(explained('GET', '/api/client/secret-id').operation).toBe('/client/**')
    expect(explained('GET', '/plain/x').operation).toBe('other')
  })

  test.each([
    ['GET', '/ap/me', 'unknown-upstream', ['/api']],
    ['GET', '/', 'unknown-upstream', undefined],
    ['GET', '/constructor/x', 'unknown-upstream', undefined],
    ['GET', '/api/opne', 'unknown-operation', expect.arrayContaining(['GET /open'])],
    ['GET', '/api/../admin', 'bad-request', undefined],
    ['GET', 'api/me', 'bad-request', undefined],
    ['GE T', '/api/me', 'bad-request', undefined]
  ])('%s %s would be answered here with %s', (method, path, code, suggestions) => {
    const { answer } = explained(method, path)
    expect(answer?.code).toBe(code)
    expect(answer?.suggestions).toEqual(suggestions)
  })

  test('shows no secret', () => {
    expect(JSON.stringify(explained('GET', '/api/me'))).not.toContain('CANARY')
  })
})
