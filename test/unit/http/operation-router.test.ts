import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { operationRouter } from '../../../src/http/operation-router.ts'
import { operationsFromOpenapi } from '../../../src/http/openapi.ts'
import { routeMatcher } from '../../../src/http/route.ts'

// few words and many oddities, so that patterns and paths meet often
const word = fc.constantFrom('a', 'b', 'A', 'ab', 'a.b', 'a-b', 'a;b', ':a', 'a:b', 'a%2Fb', 'å', '~', '(', '$', '0')
const wild = fc.constantFrom('*', '{id}', '**', '*.json', 'a*', '{a}.{b}', '***')
const template = fc
  .array(fc.oneof({ arbitrary: word, weight: 3 }, { arbitrary: wild, weight: 2 }, fc.constant('')), { maxLength: 4 })
  .map((segments) => `/${segments.join('/')}`)
const pattern = fc.tuple(fc.constantFrom('', 'GET ', 'POST ', 'FOO '), template).map(([method, path]) => method + path)
const segment = fc.oneof(word, fc.constantFrom('', '%61', '%2F', '%2f', '%7e', '%', '%zz', 'x.json', '*', '{id}', '%C3%A5', '?', '#'))
const path = fc.array(segment, { maxLength: 5 }).map((segments) => `/${segments.join('/')}`)

describe('the operation router', () => {
  test('finds a pattern exactly where the route matcher matches, and that pattern matches by itself', () => {
    fc.assert(
      fc.property(fc.array(pattern, { maxLength: 6 }), fc.constantFrom('GET', 'POST', 'FOO', 'BAR'), path, (patterns, method, requestPath) => {
        const found = operationRouter(patterns).find(method, requestPath)
        expect(found !== undefined).toBe(routeMatcher(patterns)(method, requestPath))
        expect(found === undefined || routeMatcher([found])(method, requestPath)).toBe(true)
      }),
      { numRuns: 3000 }
    )
  })

  test('allowed methods are those with which the route matcher matches, and HEAD where GET is', () => {
    fc.assert(
      fc.property(fc.array(pattern, { maxLength: 6 }), path, (patterns, requestPath) => {
        const named = patterns.filter((each) => !each.startsWith('/'))
        const matching = ['FOO', 'GET', 'POST'].filter((method) => routeMatcher(named)(method, requestPath))
        const expected = matching.flatMap((method) => (method === 'GET' ? ['GET', 'HEAD'] : [method]))
        expect(operationRouter(named).allowedMethods(requestPath)).toEqual(expected)
      }),
      { numRuns: 1000 }
    )
  })

  test('prefers the specific pattern to the wildcard, and the method to any method', () => {
    const router = operationRouter(['/**', 'GET /v1/**', 'GET /v1/*', 'GET /v1/me'])
    expect(['/v1/me', '/v1/7', '/v1/7/x', '/v1'].map((each) => router.find('GET', each))).toEqual(['GET /v1/me', 'GET /v1/*', 'GET /v1/**', 'GET /v1/**'])
    expect(router.find('PUT', '/v1/me')).toBe('/**')
  })

  test('lets HEAD go where GET goes, unless a pattern of its own says where', () => {
    const router = operationRouter(['GET /v1/*', 'HEAD /v1/me', 'POST /v1/orders/*', '/any'])
    expect(['/v1/7', '/v1/me', '/v1/orders/7', '/any'].map((each) => router.find('HEAD', each))).toEqual(['GET /v1/*', 'HEAD /v1/me', undefined, '/any'])
  })

  test('of two patterns of one shape the first gives the name', () => {
    expect(operationRouter(['GET /v1/{id}', 'GET /v1/*']).find('GET', '/v1/7')).toBe('GET /v1/{id}')
  })

  test('is case-sensitive and takes segments of any length', () => {
    const router = operationRouter(['GET /v1/*'])
    expect(router.find('GET', '/V1/a')).toBeUndefined()
    expect(router.find('GET', `/v1/${'x'.repeat(5000)}`)).toBe('GET /v1/*')
  })

  test('suggests the typo’s original first, then the same path with another method', () => {
    const router = operationRouter(['GET /v1/invoices/{id}', 'GET /v1/customers', 'GET /v1/customers/{id}', 'POST /v1/customers'])
    expect(router.nearest('GET', '/v1/custmers/7')[0]).toBe('GET /v1/customers/{id}')
    expect(router.nearest('PUT', '/v1/customers')).toEqual(['GET /v1/customers', 'POST /v1/customers', 'GET /v1/customers/{id}'])
  })

  test('10,000 operations cost a lookup no more than ten do', () => {
    const small = lookupsPerMs(10)
    const large = lookupsPerMs(10_000)
    // a linear search would be a thousand times slower; the factor leaves room for a noisy machine
    expect(small / large).toBeLessThan(20)
  })
})

function lookupsPerMs(operations: number): number {
  const router = operationRouter(Array.from({ length: operations }, (_, i) => `GET /v1/resource${i}/{id}`))
  const startedAt = performance.now()
  for (let i = 0; i < 5000; i++) router.find('GET', `/v1/resource${(i * 7) % operations}/77`)
  return 5000 / (performance.now() - startedAt)
}

describe('operations of an openapi description', () => {
  test('are its methods and paths, partial parameters become wildcards', () => {
    const paths = {
      '/v1/items/{id}': { parameters: [], get: {}, put: {}, 'x-note': 1 },
      '/v1/items/{id}.{format}': { post: {} },
      '/v1/search': { query: {}, additionalOperations: { COPY: {} } },
      'x-extension': { get: {} }
    }
    expect(operationsFromOpenapi({ openapi: '3.2.0', paths })).toEqual([
      'GET /v1/items/{id}',
      'PUT /v1/items/{id}',
      'POST /v1/items/*.*',
      'QUERY /v1/search',
      'COPY /v1/search'
    ])
    expect(operationsFromOpenapi({ swagger: '2.0', paths: { '/a': { delete: {} } } })).toEqual(['DELETE /a'])
  })

  test.each([[undefined], [[]], [{ paths: { '/a': { get: {} } } }], [{ openapi: '3.1.0' }], [{ openapi: '3.1.0', paths: { '/a': {} } }]])(
    'a document that lists none (%j) is an error, not an empty list',
    (document) => {
      expect(() => operationsFromOpenapi(document)).toThrow(/openapi/)
    }
  )
})
