import { request, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { origin, type Origin, type Received } from '../support/origin.ts'
import { testSidecar, type TestSidecar } from '../support/sidecar.ts'

type Answer = (received: Received, response: ServerResponse) => void
type Rig = {
  provider: Origin
  sidecar: TestSidecar
  url(path: string): string
  ask(path: string, init?: RequestInit): Promise<Response>
  /** Paths and methods that reached the provider. */
  reached(): string[]
}

const cleanUps: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp()
})

/** A provider that answers so, and a sidecar of its own in front of it with these settings of the upstream. */
async function ownRig(answer: Answer, settings = '', options?: Parameters<typeof testSidecar>[1], head = ''): Promise<Rig> {
  const provider = await origin(answer)
  cleanUps.push(() => provider.close())
  const sidecar = await testSidecar(`${head}\nupstreams:\n  up:\n    baseUrl: ${provider.url}/api/\n    retry: { attempts: 1 }\n${settings}`, options)
  cleanUps.push(() => sidecar.stop())
  return rigOf(provider, sidecar, '/up')
}

function rigOf(provider: Origin, sidecar: TestSidecar, prefix: string): Rig {
  return {
    provider,
    sidecar,
    url: (path) => `${sidecar.dataUrl}${prefix}${path}`,
    ask: (path, init) => fetch(`${sidecar.dataUrl}${prefix}${path}`, { redirect: 'manual', ...init }),
    reached: () => provider.received.map(({ method, url }) => `${method} ${url.replace('/api', '')}`)
  }
}

// Most tests only need paths of their own: they share one sidecar, each with an upstream path and a provider's answer of its own.
let shared: { provider: Origin; sidecar: TestSidecar }
const answers = new Map<string, Answer>()
beforeAll(async () => {
  const provider = await origin((received, response) => answers.get(received.url.split('/')[2] ?? '')?.(received, response))
  shared = {
    provider,
    sidecar: await testSidecar(`upstreams:\n  up:\n    baseUrl: ${provider.url}/api/\n    retry: { attempts: 1 }\n    breaker: { failures: 1000 }\n`)
  }
})
afterAll(async () => {
  await shared.sidecar.stop()
  await shared.provider.close()
})

/** A part of the shared provider that answers so. */
function rig(answer: Answer): Rig {
  const name = `t${answers.size}`
  answers.set(name, answer)
  const { provider, sidecar } = shared
  const ours = {
    ...provider,
    get received() {
      return provider.received.filter(({ url }) => url.startsWith(`/api/${name}/`))
    }
  }
  return { ...rigOf(ours, sidecar, `/up/${name}`), reached: () => ours.received.map(({ method, url }) => `${method} ${url.slice(`/api/${name}`.length)}`) }
}

const fresh = { 'Cache-Control': 'max-age=60' }

describe('a cached answer over the whole stack', () => {
  test('a hit costs no call and says so: Cache-Status, Age, no attempts; bytes and fields are those of the provider', async () => {
    const { provider, ask } = rig((_received, response) =>
      response.writeHead(200, { ...fresh, 'X-Mine': '1', ETag: '"1"', 'Content-Length': 8 }).end('{"a": 1}')
    )
    const miss = await ask('/a?x=1')
    expect([miss.headers.get('cache-status'), miss.headers.get('attache-attempts')]).toEqual(['attache; fwd=uri-miss; fwd-status=200; stored', '1'])
    const hit = await ask('/a?x=1')
    expect(await hit.text()).toBe(await miss.text())
    // Date counts whole seconds: an answer from the end of one is a second old at the start of the next
    const age = Number(hit.headers.get('age'))
    expect([0, 1]).toContain(age)
    expect([hit.headers.get('cache-status'), hit.headers.get('attache-attempts')]).toEqual([`attache; hit; ttl=${60 - age}`, '0'])
    for (const name of ['x-mine', 'etag', 'date', 'content-length', 'cache-control']) expect(hit.headers.get(name)).toBe(miss.headers.get(name))
    expect(provider.received).toHaveLength(1)
  })

  test('the metrics tell hits, misses, size and calls avoided, and the admin port purges by prefix', async () => {
    const { provider, sidecar, ask } = await ownRig((_received, response) => response.writeHead(200, fresh).end('ok'))
    for (const path of ['/a/1', '/a/1', '/a/2', '/b']) await ask(path)
    const metric = (name: string, labels = {}): Promise<number> => sidecar.metric(name, { upstream: 'up', ...labels })
    expect(await metric('attache_cache_requests_total', { result: 'hit' })).toBe(1)
    expect(await metric('attache_cache_requests_total', { result: 'miss' })).toBe(3)
    expect(await metric('attache_calls_avoided_total', { reason: 'cache' })).toBe(1)
    expect(await metric('attache_requests_total', { source: 'cache' })).toBe(1)
    expect(await metric('attache_cache_entries')).toBe(3)
    expect(await metric('attache_cache_bytes')).toBeGreaterThan(1000)
    const purged = await fetch(`${sidecar.adminUrl}/api/cache?upstream=up&prefix=/a/`, { method: 'DELETE' })
    expect(purged.ok).toBe(true)
    expect(await metric('attache_cache_entries')).toBe(1)
    await ask('/a/1')
    await ask('/b')
    expect(provider.received.map(({ url }) => url)).toEqual(['/api/a/1', '/api/a/2', '/api/b', '/api/a/1'])
  })

  test('under --speed a lifetime is scaled time', async () => {
    const { provider, sidecar, ask } = await ownRig((_received, response) => response.writeHead(200, { 'Cache-Control': 'max-age=3600' }).end('ok'), '', {
      speed: 3600
    })
    sidecar.time.stop()
    await ask('/a')
    await ask('/a')
    expect(provider.received).toHaveLength(1)
    sidecar.time.pass(1001)
    expect((await ask('/a')).headers.get('attache-attempts')).toBe('1')
    expect(provider.received).toHaveLength(2)
  })

  test('revalidation, the app’s own conditions, HEAD and ranges', async () => {
    const { provider, ask } = rig((received, response) => {
      const known = received.headers['if-none-match'] === '"1"'
      response
        .writeHead(known ? 304 : 200, { 'Cache-Control': 'no-cache', ETag: '"1"', ...(known ? {} : { 'Content-Type': 'text/x' }) })
        .end(known ? undefined : '0123456789')
    })
    expect(await (await ask('/a')).text()).toBe('0123456789')
    const again = await ask('/a')
    expect([again.status, await again.text(), again.headers.get('cache-status')]).toEqual([200, '0123456789', 'attache; fwd=stale; fwd-status=304; stored'])
    expect((await ask('/a', { headers: { 'If-None-Match': '"1"' } })).status).toBe(304)
    expect(await (await ask('/a', { headers: { Range: 'bytes=2-3' } })).text()).toBe('23')
    expect(provider.received.map(({ headers }) => headers['if-none-match'])).toEqual([undefined, '"1"', '"1"', '"1"'])
  })

  test('HEAD, 304 and 206 from the store are framed right', async () => {
    const { ask, provider } = rig((_received, response) => response.writeHead(200, { ...fresh, ETag: '"1"' }).end('0123456789'))
    await ask('/a')
    const head = await ask('/a', { method: 'HEAD' })
    expect([head.status, head.headers.get('content-length'), await head.text()]).toEqual([200, '10', ''])
    // fetch itself adds no-cache to a condition unless there is a Cache-Control
    const unchanged = await ask('/a', { headers: { 'If-None-Match': 'W/"1"', 'Cache-Control': 'max-stale=0' } })
    expect([unchanged.status, unchanged.headers.get('etag'), await unchanged.text()]).toEqual([304, '"1"', ''])
    const part = await ask('/a', { headers: { Range: 'bytes=-3' } })
    expect([part.status, part.headers.get('content-length'), part.headers.get('content-range'), await part.text()]).toEqual([206, '3', 'bytes 7-9/10', '789'])
    const beyond = await ask('/a', { headers: { Range: 'bytes=10-' } })
    expect([beyond.status, beyond.headers.get('content-range'), await beyond.text()]).toEqual([416, 'bytes */10', ''])
    expect(provider.received).toHaveLength(1)
  })

  test('fields of the connection cross neither on a miss nor on a hit', async () => {
    const { ask } = rig((_received, response) =>
      response.writeHead(200, { ...fresh, Connection: 'close, X-Hop', 'X-Hop': '1', 'Keep-Alive': 'timeout=9', 'X-End': '2' }).end('ok')
    )
    for (const source of ['fwd', 'hit']) {
      const { headers } = await ask('/a')
      expect(headers.get('cache-status')).toContain(source)
      expect([headers.get('x-hop'), headers.get('x-end')]).toEqual([null, '2'])
    }
  })

  test('a write and the Location of its answer invalidate', async () => {
    const { provider, ask, reached } = rig((received, response) => {
      if (received.method === 'POST') response.writeHead(201, { Location: `${received.url}/7` }).end()
      else response.writeHead(200, fresh).end(`${provider.received.length}`)
    })
    for (const path of ['/items', '/items/7', '/items/8']) await ask(path)
    const posted = await ask('/items', { method: 'POST', body: '{}' })
    expect(posted.headers.get('location')).toMatch(/^\/up\/t\d+\/items\/7$/)
    for (const path of ['/items', '/items/7', '/items/8']) await ask(path)
    expect(reached().slice(3)).toEqual(['POST /items', 'GET /items', 'GET /items/7'])
  })
})

describe('identities', () => {
  test('answers of one credential are never given to another, whatever the provider marks public', async () => {
    const { provider, ask } = await ownRig(
      (received, response) => response.writeHead(200, { 'Cache-Control': 'public, max-age=60' }).end(String(received.headers['x-api-key'])),
      '    credential: [{ match: "/client/**", credential: client }, { credential: user }]\n    headers: { S4-TenantId: one }\n',
      { environment: { CLIENT: 'client-key', USER: 'user-key' } },
      'credentials:\n  client: { grant: static, header: X-Api-Key, value: "${CLIENT}" }\n  user: { grant: static, header: X-Api-Key, value: "${USER}" }'
    )
    expect(await (await ask('/me')).text()).toBe('user-key')
    expect(await (await ask('/client/me')).text()).toBe('client-key')
    expect(await (await ask('/me')).text()).toBe('user-key')
    expect(provider.received).toHaveLength(2)
  })

  test('with credential none the app’s own Authorization separates answers', async () => {
    const { provider, ask } = await ownRig(
      (received, response) => response.writeHead(200, fresh).end(received.headers.authorization ?? 'nobody'),
      '    credential: none\n'
    )
    const as = async (authorization: string): Promise<string> => (await ask('/me', { headers: { Authorization: authorization } })).text()
    expect([await as('Bearer a'), await as('Bearer b'), await as('Bearer a')]).toEqual(['Bearer a', 'Bearer b', 'Bearer a'])
    expect(await (await ask('/me')).text()).toBe('nobody')
    expect(provider.received).toHaveLength(3)
  })
})

describe('collapsing on real sockets', () => {
  test('a hundred callers of one slow resource cost one call', async () => {
    const waiting: ServerResponse[] = []
    const { provider, ask } = rig((_received, response) => void waiting.push(response))
    const callers = Array.from({ length: 100 }, () => ask('/slow'))
    await expect.poll(() => waiting.length).toBe(1)
    waiting[0]?.writeHead(200, fresh).end('shared')
    const texts = await Promise.all(callers.map(async (caller) => (await caller).text()))
    expect(new Set(texts)).toEqual(new Set(['shared']))
    expect(provider.received).toHaveLength(1)
  })

  test('the caller that came first hangs up: the others get the answer and the call goes on', async () => {
    const waiting: ServerResponse[] = []
    const { provider, ask } = rig((_received, response) => void waiting.push(response))
    const first = new AbortController()
    const gone = ask('/slow', { signal: first.signal }).catch((error: unknown) => error)
    await expect.poll(() => waiting.length).toBe(1)
    const second = ask('/slow')
    const third = ask('/other')
    await expect.poll(() => waiting.length).toBe(2)
    first.abort()
    await gone
    waiting[1]?.writeHead(200).end()
    await third
    expect(waiting[0]?.destroyed).toBe(false)
    waiting[0]?.writeHead(200, fresh).end('kept')
    expect(await (await second).text()).toBe('kept')
    expect((await ask('/slow')).headers.get('attache-attempts')).toBe('0')
    expect(provider.received).toHaveLength(2)
  })

  test('a caller alone that hangs up cancels its call', async () => {
    const waiting: ServerResponse[] = []
    const { ask } = rig((_received, response) => void waiting.push(response))
    const caller = new AbortController()
    const gone = ask('/slow', { signal: caller.signal }).catch((error: unknown) => error)
    await expect.poll(() => waiting.length).toBe(1)
    caller.abort()
    await gone
    await expect.poll(() => waiting[0]?.destroyed).toBe(true)
  })
})

describe('large and broken bodies', () => {
  const LARGE = 'x'.repeat(300_000)

  test('a caller that hangs up in the middle of a body ends the transfer when it was alone, and not when others wait', async () => {
    const waiting: ServerResponse[] = []
    const { ask, reached } = rig((received, response) => {
      if (received.url.endsWith('/tick')) return void response.end()
      response.writeHead(200, { ...fresh, 'Content-Length': 200_000 }).write('x'.repeat(100_000))
      waiting.push(response)
      return undefined
    })
    const alone = new AbortController()
    await ask('/alone', { signal: alone.signal })
    alone.abort()
    await expect.poll(() => waiting[0]?.destroyed).toBe(true)
    const first = new AbortController()
    await ask('/shared', { signal: first.signal })
    const late = ask('/shared')
    // whatever comes after it has arrived later: the late one is waiting
    await ask('/tick')
    first.abort()
    await ask('/tick')
    expect(waiting[1]?.destroyed).toBe(false)
    waiting[1]?.end('y'.repeat(100_000))
    expect(await (await late).text()).toHaveLength(200_000)
    expect(reached().filter((line) => line === 'GET /shared')).toHaveLength(1)
  })

  test('a body that streams through is stored when it is whole', async () => {
    const { provider, ask } = rig((_received, response) => void response.writeHead(200, fresh).end(LARGE))
    expect(await (await ask('/a')).text()).toBe(LARGE)
    const hit = await ask('/a')
    expect([hit.headers.get('attache-attempts'), hit.headers.get('content-length'), await hit.text()]).toEqual(['0', '300000', LARGE])
    expect(provider.received).toHaveLength(1)
  })

  test('a chunked body too', async () => {
    const { provider, ask } = rig((_received, response) => {
      response.writeHead(200, fresh)
      response.write('one ')
      setImmediate(() => response.end('two'))
    })
    expect(await (await ask('/a')).text()).toBe('one two')
    expect(await (await ask('/a')).text()).toBe('one two')
    expect(provider.received).toHaveLength(1)
  })

  test.each([
    ['an announced length', { 'Content-Length': '300000' }],
    ['chunks', {}]
  ])('a body that breaks off (%s) is not stored', async (_what, headers: IncomingHttpHeaders) => {
    let breaks = true
    const { provider, ask } = rig((_received, response) => {
      response.writeHead(200, { ...fresh, ...headers })
      response.write('x'.repeat(100_000), () => {
        if (breaks) response.socket?.destroy()
        else response.end('x'.repeat(200_000))
      })
    })
    await expect(ask('/a').then((answer) => answer.text())).rejects.toThrow(/terminated|closed/)
    breaks = false
    expect(await (await ask('/a')).text()).toBe(LARGE)
    expect(await (await ask('/a')).text()).toBe(LARGE)
    expect(provider.received).toHaveLength(2)
  })

  test('a reader slower than the provider does not hold back the store, and nothing is lost on its way', async () => {
    const { url, ask } = rig((_received, response) => void response.writeHead(200, fresh).end('x'.repeat(900_000)))
    const slow = await new Promise<IncomingMessage>((resolve) => {
      request(url('/a'), resolve).end()
    })
    slow.pause()
    await expect.poll(async () => (await ask('/a')).headers.get('attache-attempts')).toBe('0')
    let length = 0
    for await (const chunk of slow) length += (chunk as Buffer).length
    expect(length).toBe(900_000)
  })
})

describe('stale answers over the whole stack', () => {
  test('with the provider gone a stale answer stands in, marked; one that must be revalidated does not', async () => {
    let serving = true
    const { ask, sidecar } = await ownRig(
      (received, response) => {
        if (serving) response.writeHead(200, { 'Cache-Control': received.url === '/api/strict' ? 'max-age=1, must-revalidate' : 'max-age=1' }).end('ok')
        else response.socket?.destroy()
      },
      '    breaker: { failures: 2, cooldown: 3600s, maxCooldown: 3600s }\n',
      { speed: 10 }
    )
    for (const path of ['/a', '/strict']) await ask(path)
    serving = false
    await expect.poll(async () => (await ask('/a')).headers.get('cache-status'), { timeout: 4000 }).toBe('attache; fwd=stale; detail=upstream-unreachable')
    const strict = async (): Promise<unknown> => {
      const { status, headers } = await ask('/strict')
      return [status, headers.get('content-type')]
    }
    await expect.poll(strict, { timeout: 4000 }).toEqual([502, 'application/problem+json'])
    // two failures have opened the breaker: the stale answer now costs no call
    const shielded = await ask('/a')
    expect([shielded.status, shielded.headers.get('attache-attempts'), await shielded.text()]).toEqual([200, '0', 'ok'])
    expect(shielded.headers.get('cache-status')).toMatch(/^attache; hit; ttl=-?\d+; detail=breaker-open$/)
    expect(await sidecar.metric('attache_requests_total', { source: 'stale' })).toBeGreaterThan(1)
    expect((await ask('/strict')).status).toBe(503)
  })

  test('agreed "no such thing" answers are remembered, server errors never', async () => {
    const { provider, ask } = await ownRig(
      (received, response) => response.writeHead(received.url === '/api/broken' ? 500 : 404, received.url === '/api/broken' ? fresh : {}).end(),
      '    cache: { negative: { 404: 60s } }\n'
    )
    for (const path of ['/missing', '/missing', '/missing', '/broken', '/broken']) await ask(path)
    expect(provider.received.map(({ url }) => url)).toEqual(['/api/missing', '/api/broken', '/api/broken'])
  })
})
