import { readFileSync, readdirSync } from 'node:fs'
import { afterEach, describe, expect, it } from 'vitest'
import { origin, type Origin } from '../support/origin.ts'
import { testSidecar, type TestSidecar } from '../support/sidecar.ts'

/** The laws that follow from the order of the policies (docs/architecture.md), each with real servers on both sides. */

const cleanUps: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp()
})

type Api = (
  token: string | undefined,
  url: string
) => { status: number; fields?: Record<string, string>; body?: string } | Promise<{ status: number; fields?: Record<string, string>; body?: string }>

/** A token service and an API on one loopback server. */
async function provider(
  api: Api,
  tokens: { answer?: () => { status: number; body: unknown }; before?: () => Promise<void> } = {}
): Promise<Origin & { tokenRequests: () => number; calls: () => string[] }> {
  let issued = 0
  const server = await origin((received, response) => {
    void (async () => {
      if (received.url === '/token') {
        await tokens.before?.()
        const { status, body } = tokens.answer?.() ?? {
          status: 200,
          body: { access_token: `token-number-${++issued}`, token_type: 'Bearer', expires_in: 3600 }
        }
        return response.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(body))
      }
      const { status, fields = {}, body = 'ok' } = await api(received.headers.authorization, received.url)
      return response.writeHead(status, { 'Content-Length': Buffer.byteLength(body), ...fields }).end(body)
    })()
  })
  cleanUps.push(() => server.close())
  const calls = (): string[] => server.received.filter(({ url }) => url !== '/token').map(({ method, url }) => `${method} ${url}`)
  return { ...server, tokenRequests: () => server.received.filter(({ url }) => url === '/token').length, calls }
}

async function sidecarFor(server: Origin, upstream: string, options: Parameters<typeof testSidecar>[1] = {}): Promise<TestSidecar> {
  const sidecar = await testSidecar(
    `
credentials:
  machine: { grant: client_credentials, tokenUrl: "${server.url}/token", clientId: app, clientSecret: "\${SECRET}", clientAuth: client_secret_basic }
upstreams:
  up: { baseUrl: "${server.url}/api", credential: machine, ${upstream} }
`,
    { environment: { SECRET: 'CANARY-secret' }, ...options }
  )
  cleanUps.push(() => sidecar.stop())
  return sidecar
}

const ask = (sidecar: TestSidecar, path = '/x', init?: RequestInit): Promise<Response> => fetch(`${sidecar.dataUrl}/up${path}`, init)
const problemOf = async (answer: Response): Promise<string> => ((await answer.json()) as { type: string }).type.replace('urn:attache:problem:', '')

describe('the order of the policies', () => {
  it('a cache hit costs no volume and no token', async () => {
    const server = await provider(() => ({ status: 200, fields: { 'Cache-Control': 'max-age=60' } }))
    const sidecar = await sidecarFor(server, 'volume: { limits: ["1/1h"], onExceed: reject }')
    for (let i = 0; i < 5; i++) expect((await ask(sidecar)).status).toBe(200)
    expect(server.calls()).toHaveLength(1)
    expect(server.tokenRequests()).toBe(1)
    expect(await sidecar.metric('attache_token_uses_total')).toBe(1)
    expect((await ask(sidecar, '/other')).status).toBe(429)
  })

  it('n attempts cost n units of volume', async () => {
    const server = await provider(() => ({ status: 502 }))
    const sidecar = await sidecarFor(server, 'retry: { attempts: 3, backoff: [5ms], jitter: 0 }, volume: { limits: ["3/1h"], onExceed: reject }')
    const first = await ask(sidecar)
    expect(first.status).toBe(502)
    expect(first.headers.get('attache-attempts')).toBe('3')
    expect(await problemOf(await ask(sidecar))).toBe('volume-exhausted')
    expect(server.calls()).toHaveLength(3)
  })

  it('an open breaker costs no volume', async () => {
    const server = await provider(() => ({ status: 500 }))
    const sidecar = await sidecarFor(
      server,
      'retry: { attempts: 1 }, breaker: { failures: 2, cooldown: 1h, maxCooldown: 1h }, volume: { limits: ["3/1h"], onExceed: reject }'
    )
    for (let i = 0; i < 2; i++) expect((await ask(sidecar)).status).toBe(500)
    for (let i = 0; i < 5; i++) expect(await problemOf(await ask(sidecar))).toBe('breaker-open')
    const closed = await fetch(`${sidecar.adminUrl}/api/breakers/up`, {
      method: 'PUT',
      headers: { 'content-type': 'application/json' },
      body: '{"state":"closed"}'
    })
    expect(closed.status).toBe(200)
    expect((await ask(sidecar)).status).toBe(500)
    expect(server.calls()).toHaveLength(3)
  })

  it('a replay after 401 is a second attempt, and is counted', async () => {
    const server = await provider((authorization) => (authorization === 'Bearer token-number-1' ? { status: 401 } : { status: 200 }))
    const sidecar = await sidecarFor(server, 'volume: { limits: ["2/1h"], onExceed: reject }')
    const answer = await ask(sidecar, '/x', { method: 'POST', body: 'order' })
    expect(answer.status).toBe(200)
    expect(answer.headers.get('attache-attempts')).toBe('2')
    expect(server.received.filter(({ url }) => url !== '/token').map(({ body }) => body.toString())).toEqual(['order', 'order'])
    expect(server.tokenRequests()).toBe(2)
    expect(await problemOf(await ask(sidecar))).toBe('volume-exhausted')
  })

  it('a token failure never opens the breaker of the API, and nothing is sent without a credential', async () => {
    let isDown = true
    const server = await provider(() => ({ status: 200 }), {
      answer: () => (isDown ? { status: 500, body: {} } : { status: 200, body: { access_token: 'late', token_type: 'Bearer', expires_in: 3600 } })
    })
    const sidecar = await sidecarFor(server, 'breaker: { failures: 1, cooldown: 1h, maxCooldown: 1h }, timeout: { total: 300ms }')
    for (let i = 0; i < 5; i++) {
      const answer = await ask(sidecar)
      expect(answer.status).toBe(503)
      expect(await problemOf(answer)).toBe('token-unavailable')
      expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0)
    }
    expect(server.calls()).toHaveLength(0)
    expect(server.tokenRequests()).toBe(1)
    expect(await sidecar.metric('attache_breaker_state', { state: 'open' })).toBe(0)
    isDown = false
  })

  it('waiting for a volume slot is not the provider being slow', async () => {
    const server = await provider(async () => {
      await new Promise((resolve) => setTimeout(resolve, 60))
      return { status: 200 }
    })
    const sidecar = await sidecarFor(server, 'volume: { concurrency: 1 }, timeout: { response: 150ms }')
    const answers = await Promise.all(Array.from({ length: 6 }, (_, i) => ask(sidecar, `/${i}`)))
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200, 200])
  })

  it('a caller who leaves never kills a token fetch that others wait for', async () => {
    const arrived = Promise.withResolvers<void>()
    const release = Promise.withResolvers<void>()
    const server = await provider(() => ({ status: 200 }), {
      before: async () => {
        arrived.resolve()
        await release.promise
      }
    })
    const sidecar = await sidecarFor(server, 'timeout: { total: 10s }')
    const leaving = new AbortController()
    const first = ask(sidecar, '/first', { signal: leaving.signal })
    await arrived.promise
    const second = ask(sidecar, '/second')
    leaving.abort()
    await expect(first).rejects.toThrow(/abort/)
    release.resolve()
    expect((await second).status).toBe(200)
    expect(server.tokenRequests()).toBe(1)
    expect(server.calls()).toEqual(['GET /api/second'])
  })

  it('a caller who leaves never kills a cache fill that others wait for', async () => {
    const arrived = Promise.withResolvers<void>()
    const release = Promise.withResolvers<void>()
    const server = await provider(async () => {
      arrived.resolve()
      await release.promise
      return { status: 200, fields: { 'Cache-Control': 'max-age=60' } }
    })
    const sidecar = await sidecarFor(server, 'timeout: { total: 10s }')
    const leaving = new AbortController()
    const first = ask(sidecar, '/shared', { signal: leaving.signal })
    await arrived.promise
    const others = [ask(sidecar, '/shared'), ask(sidecar, '/shared')]
    // the others have joined once the sidecar has seen them; only then does the first one leave
    while ((await statusOf(sidecar)).inFlight < 3) await new Promise((resolve) => setImmediate(resolve))
    leaving.abort()
    await expect(first).rejects.toThrow(/abort/)
    release.resolve()
    expect((await Promise.all(others)).map(({ status }) => status)).toEqual([200, 200])
    expect(server.calls()).toHaveLength(1)
  })

  it('retry exists in one room: nothing else in the house sends a request twice', () => {
    const mentions = readdirSync('src', { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts'))
      .filter((file) => /RetryAgent|interceptors\.retry|retryOptions\s*=|maxRetriesOn503/.test(readFileSync(`src/${file}`, 'utf8')))
    expect(mentions).toEqual(['policies/retry.ts'])
  })
})

async function statusOf(sidecar: TestSidecar): Promise<{ inFlight: number }> {
  return (await (await fetch(`${sidecar.adminUrl}/api/status`)).json()) as { inFlight: number }
}

describe('frugality at the token service', () => {
  it('200 parallel cold requests make one token request', async () => {
    const server = await provider(() => ({ status: 200 }), { before: () => new Promise((resolve) => setTimeout(resolve, 50)) })
    const sidecar = await sidecarFor(server, 'volume: { concurrency: 200 }')
    const answers = await Promise.all(Array.from({ length: 200 }, (_, i) => ask(sidecar, `/${i}`)))
    expect(answers.every(({ status }) => status === 200)).toBe(true)
    expect(server.tokenRequests()).toBe(1)
    expect(new Set(server.received.filter(({ url }) => url !== '/token').map(({ headers }) => headers.authorization))).toEqual(
      new Set(['Bearer token-number-1'])
    )
  })

  it('an operator may have a token renewed, and the provider learns of it once', async () => {
    const server = await provider(() => ({ status: 200 }))
    const sidecar = await sidecarFor(server, 'timeout: {}')
    expect((await ask(sidecar, '/1')).status).toBe(200)
    const renewed = await fetch(`${sidecar.adminUrl}/api/credentials/machine/renew`, { method: 'POST' })
    expect(renewed.status).toBe(200)
    expect(await renewed.text()).not.toContain('token-number')
    expect((await ask(sidecar, '/2')).status).toBe(200)
    expect(server.tokenRequests()).toBe(2)
    expect(server.received.at(-1)?.headers.authorization).toBe('Bearer token-number-2')
    expect(await sidecar.metric('attache_token_requests_total', { reason: 'operator' })).toBe(1)
    expect((await fetch(`${sidecar.adminUrl}/api/credentials/nobody/renew`, { method: 'POST' })).status).toBe(404)
  })

  it('a token the provider echoes never reaches the app', async () => {
    const server = await provider((authorization) => ({ status: 200, fields: { 'X-Debug': authorization ?? '', 'X-Other': 'kept' } }))
    const sidecar = await sidecarFor(server, 'timeout: {}')
    const answer = await ask(sidecar)
    expect(answer.headers.get('x-debug')).toBeNull()
    expect(answer.headers.get('x-other')).toBe('kept')
  })
})
