import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { origin, type Origin } from '../support/origin.ts'
import { exchangeRaw, statusOf } from '../support/raw.ts'
import { requireReal } from '../support/real.ts'
import { testSidecar, type TestSidecar } from '../support/sidecar.ts'

const promtool = requireReal('promtool')
let provider: Origin
let sidecar: TestSidecar
beforeAll(async () => {
  provider = await origin((_received, response) => void response.writeHead(200, { 'Cache-Control': 'max-age=60', 'Content-Length': 2 }).end('ok'))
  sidecar = await testSidecar(
    `
credentials: { key: { grant: static, header: X-Api-Key, value: "\${KEY}" } }
upstreams:
  up:
    baseUrl: ${provider.url}
    credential: key
    operations: { allow: ["GET /articles/{id}"], unknown: report }
  idle: { baseUrl: "${provider.url}" }
`,
    { environment: { KEY: 'CANARY-KEY' } }
  )
})
afterAll(async () => {
  await sidecar.stop()
  await provider.close()
})

const admin = (path: string, init?: RequestInit): Promise<Response> => fetch(`${sidecar.adminUrl}${path}`, init)

describe('health', () => {
  it('answers livez and readyz', async () => {
    expect((await admin('/livez')).status).toBe(200)
    expect((await admin('/readyz')).status).toBe(200)
  })
})

describe('metrics', () => {
  it('of an upstream at rest are there before anything has happened', async () => {
    const text = await sidecar.metrics()
    for (const series of [
      'breaker_state{upstream="idle",state="closed"} 1',
      'breaker_state{upstream="idle",state="open"} 0',
      'in_flight{upstream="idle"} 0',
      'queue{upstream="idle"} 0',
      'cache_entries{upstream="idle"} 0'
    ]) {
      expect(text).toContain(`attache_${series}`)
    }
  })

  it('count exactly what was asked, under templates instead of paths', async () => {
    const before = await sidecar.metric('attache_requests_total', { upstream: 'up' })
    for (const id of [1, 2, 3]) await fetch(`${sidecar.dataUrl}/up/articles/${id}`)
    await fetch(`${sidecar.dataUrl}/up/articles/3`)
    await fetch(`${sidecar.dataUrl}/up/elsewhere/3`)
    expect(await sidecar.metric('attache_requests_total', { upstream: 'up' })).toBe(before + 5)
    expect(await sidecar.metric('attache_requests_total', { operation: 'GET /articles/{id}', source: 'upstream', code: '200' })).toBe(3)
    expect(await sidecar.metric('attache_requests_total', { operation: 'GET /articles/{id}', source: 'cache' })).toBe(1)
    expect(await sidecar.metric('attache_requests_total', { operation: 'other' })).toBe(1)
    expect(await sidecar.metric('attache_attempts_total', { upstream: 'up', code: '200', result: 'success' })).toBe(4)
    expect(await sidecar.metric('attache_in_flight', { upstream: 'up' })).toBe(0)
    const text = await sidecar.metrics()
    expect(text).not.toContain('/articles/3')
    expect(text).not.toContain('CANARY')
  })

  it('stay bounded however many paths and methods an app invents', async () => {
    for (let i = 0; i < 200; i++)
      await exchangeRaw(sidecar.dataUrl, `GET /up/random/${i}?q=${i} HTTP/1.1\r\nHost: ${new URL(sidecar.dataUrl).host}\r\nConnection: close\r\n\r\n`)
    const series = (await sidecar.metrics()).split('\n').filter((line) => line.startsWith('attache_requests_total'))
    expect(series.length).toBeLessThan(20)
  })

  it.skipIf(promtool === undefined)('are what Prometheus understands', async () => {
    const checked = promisify(execFile)(promtool ?? '', ['check', 'metrics'])
    checked.child.stdin?.end(await sidecar.metrics())
    const { stderr } = await checked
    expect(stderr.split('\n').filter((line) => line.includes('attache_'))).toEqual([])
  })
})

describe('the admin API', () => {
  it('shows the state of everything and no secret', async () => {
    const text = await (await admin('/api/status')).text()
    const status = JSON.parse(text) as { upstreams: Record<string, { breaker: { kind: string } }>; credentials: { name: string }[] }
    expect(status.upstreams['up']?.breaker.kind).toBe('closed')
    expect(status.credentials.map((credential) => credential.name)).toEqual(['key'])
    expect(text).not.toContain('CANARY')
  })

  it('drops stored answers by prefix', async () => {
    await fetch(`${sidecar.dataUrl}/up/articles/77`)
    const dropped = (await (await admin('/api/cache?upstream=up&prefix=/articles/77', { method: 'DELETE' })).json()) as { dropped: number }
    expect(dropped.dropped).toBe(1)
    expect((await fetch(`${sidecar.dataUrl}/up/articles/77`)).headers.get('attache-attempts')).toBe('1')
    expect((await admin('/api/cache?upstream=nope', { method: 'DELETE' })).status).toBe(404)
  })

  it('opens and closes a breaker', async () => {
    const put = (state: string): Promise<Response> =>
      admin('/api/breakers/up', { method: 'PUT', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ state }) })
    expect((await put('open')).status).toBe(200)
    const refused = await fetch(`${sidecar.dataUrl}/up/articles/900`)
    expect(refused.status).toBe(503)
    expect(((await refused.json()) as { type: string }).type).toBe('urn:attache:problem:breaker-open')
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
    expect((await put('closed')).status).toBe(200)
    expect((await fetch(`${sidecar.dataUrl}/up/articles/900`)).status).toBe(200)
    expect((await put('ajar')).status).toBe(400)
  })

  it('explains which operation, credential and policies would serve a call, and sends nothing', async () => {
    const before = provider.received.length
    const answer = await admin('/api/explain', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ method: 'GET', path: '/up/articles/5' })
    })
    const text = await answer.text()
    expect(answer.status).toBe(200)
    expect(text).toContain('GET /articles/{id}')
    expect(text).not.toContain('CANARY')
    expect(provider.received.length).toBe(before)
  })

  it.each([
    ['a wrong method', 'GET', '/api/breakers/up', {}, 405],
    ['a body that is not JSON', 'PUT', '/api/breakers/up', { 'content-type': 'text/plain' }, 415],
    ['an unknown path', 'GET', '/debug', {}, 404],
    ['a path of the data port', 'GET', '/up/articles/1', {}, 404]
  ])('refuses %s', async (_name, method, path, headers, status) => {
    const answer = await admin(path, { method, headers: headers as Record<string, string>, ...(method === 'PUT' ? { body: 'state=open' } : {}) })
    expect(answer.status).toBe(status)
    expect(answer.headers.get('content-type')).toContain('application/problem+json')
  })

  it('is closed to browsers and to names that are not ours', async () => {
    const { host } = new URL(sidecar.adminUrl)
    expect(statusOf((await exchangeRaw(sidecar.adminUrl, 'GET /api/status HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n')).text)).toBe(421)
    expect(
      statusOf((await exchangeRaw(sidecar.adminUrl, `GET /api/status HTTP/1.1\r\nHost: ${host}\r\nOrigin: http://evil.test\r\nConnection: close\r\n\r\n`)).text)
    ).toBe(403)
  })

  it('answers a target that cannot be read in its own words, and only to those it listens to', async () => {
    const ask = async (target: string, host: string): Promise<string> =>
      (await exchangeRaw(sidecar.adminUrl, `GET ${target} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)).text
    const { host } = new URL(sidecar.adminUrl)
    for (const target of ['/%', '/api/%ff', '/api/breakers/%']) {
      expect(await ask(target, host)).toContain('urn:attache:problem:bad-request')
      expect(statusOf(await ask(target, 'evil.test'))).toBe(421)
    }
  })

  it('says how a breaker is set, whatever else is tried', async () => {
    for (const method of ['GET', 'DELETE', 'POST']) {
      const answer = await admin('/api/breakers/up', { method })
      expect([answer.status, answer.headers.get('allow')]).toEqual([405, 'PUT'])
    }
  })

  it('does not ask for the rest of a request it refuses', async () => {
    const { host } = new URL(sidecar.adminUrl)
    const { text } = await exchangeRaw(sidecar.adminUrl, `GET /livez HTTP/1.1\r\nHost: ${host}\r\nExpect: foo\r\nConnection: close\r\n\r\n`)
    expect(statusOf(text)).toBe(417)
  })

  it('keeps health and metrics off the data port', async () => {
    for (const path of ['/metrics', '/livez', '/api/status']) expect((await fetch(`${sidecar.dataUrl}${path}`)).status).toBe(404)
  })
})
