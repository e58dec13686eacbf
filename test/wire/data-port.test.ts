import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { origin, type Origin } from '../support/origin.ts'
import { exchangeRaw, statusOf } from '../support/raw.ts'
import { testSidecar, type TestSidecar } from '../support/sidecar.ts'

let provider: Origin
let sidecar: TestSidecar

beforeAll(async () => {
  provider = await origin((received, response) => {
    if (received.url.startsWith('/base/echo')) return void response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(received.fields))
    if (received.url.startsWith('/base/browser')) {
      response.writeHead(200, {
        'Set-Cookie': 'a=b',
        'Access-Control-Allow-Origin': '*',
        'Strict-Transport-Security': 'max-age=1',
        'Alt-Svc': 'h3=":1"',
        'Clear-Site-Data': '"cache"',
        Refresh: '0; url=http://evil.test',
        'Proxy-Status': 'attache; error=dns_error',
        'X-Kept': 'yes'
      })
      return void response.end('{}')
    }
    if (received.url.startsWith('/base/created')) {
      response.writeHead(201, {
        Location: `${provider.url}/base/items/7?x=1`,
        'Content-Location': '/base/items/7',
        Link: `<${provider.url}/base/next>; rel="next"; title="a, <b>", <https://elsewhere.test/x>; rel=other`
      })
      return void response.end()
    }
    if (received.url.startsWith('/base/foreign')) return void response.writeHead(302, { Location: 'https://elsewhere.test/items/7' }).end()
    if (received.url.startsWith('/base/chunked')) {
      response.writeHead(200, { 'Content-Type': 'text/plain' })
      response.write('one,')
      return void response.end('two')
    }
    if (received.url.startsWith('/base/latin')) {
      response.writeHead(200, { 'X-Name': 'caf\xe9' })
      if (received.url.endsWith('streamed')) response.write('x'.repeat(70_000))
      return void response.end('ok')
    }
    if (received.url.startsWith('/base/odd')) return void response.writeHead(480, 'Brownout', { 'X-Provider': 'odd' }).end('{"a":1,}')
    return void response.end(received.body.length > 0 ? received.body : 'ok')
  })
  sidecar = await testSidecar(`
upstreams:
  up:
    baseUrl: ${provider.url}/base
    contact: mailto:dev@example.test
    headers: { S4-TenantId: tenant-1 }
`)
})
afterAll(async () => {
  await sidecar.stop()
  await provider.close()
})

function request(bytes: string): string {
  return bytes.replaceAll('HOST', new URL(sidecar.dataUrl).host)
}
const get = (target: string, more = ''): Promise<{ text: string; closed: boolean }> =>
  exchangeRaw(sidecar.dataUrl, request(`GET ${target} HTTP/1.1\r\nHost: HOST\r\n${more}Connection: close\r\n\r\n`))

async function echoed(headers: Record<string, string>): Promise<Record<string, string>> {
  const fields = (await (await fetch(`${sidecar.dataUrl}/up/echo`, { headers })).json()) as string[]
  const record: Record<string, string> = {}
  for (let i = 0; i < fields.length; i += 2) record[(fields[i] as string).toLowerCase()] = fields[i + 1] as string
  return record
}

describe('what passes through', () => {
  it('status, unknown fields and a body that is not what it claims to be arrive byte for byte', async () => {
    const answer = await fetch(`${sidecar.dataUrl}/up/odd`)
    expect(answer.status).toBe(480)
    expect(answer.headers.get('x-provider')).toBe('odd')
    expect(await answer.text()).toBe('{"a":1,}')
    expect(answer.headers.get('proxy-status')).toBeNull()
  })

  it('a target keeps every byte, encoded slashes, empty segments and odd queries included', async () => {
    for (const target of ['/a%2Fb;v=1//c', '/..foo/a...b/.well-known/x', '/q?from=2023-07-05T12:17:30.974Z&a+b=%20&x=[1]', '/http://evil.test/', '/%C3%A6']) {
      await get(`/up${target}`)
      expect(provider.received.at(-1)?.url).toBe(`/base${target}`)
    }
  })

  it('bodies of every method arrive unchanged, DELETE and GET included', async () => {
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
      const answer = await fetch(`${sidecar.dataUrl}/up/x`, { method, body: `{"n":7080001213916, "n":1}` })
      expect(await answer.text()).toBe(`{"n":7080001213916, "n":1}`)
    }
    await exchangeRaw(sidecar.dataUrl, request('GET /up/search HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\n\r\nhello'))
    expect(provider.received.at(-1)?.body.toString()).toBe('hello')
  })

  it('a body larger than the replay buffer is streamed whole', async () => {
    const body = Buffer.alloc(3 * 1024 * 1024, 'x')
    const answer = await fetch(`${sidecar.dataUrl}/up/large`, { method: 'POST', body })
    expect(Buffer.from(await answer.arrayBuffer()).equals(body)).toBe(true)
  })

  it('an answer without known length is streamed', async () => {
    expect(await (await fetch(`${sidecar.dataUrl}/up/chunked`)).text()).toBe('one,two')
  })

  it('bytes of a field beyond ASCII stay as they are, however the answer travels', async () => {
    const { text } = await get('/up/latin')
    expect(text).toMatch(/x-name: caf\xe9\r\n/i)
    const streamed = await get('/up/latin/streamed')
    expect(streamed.text).toMatch(/x-name: caf\xe9\r\n/i)
    expect(streamed.text).toMatch(/transfer-encoding: chunked/i)
  })

  it.each(['PROPFIND', 'QUERY', 'M-SEARCH', 'PURGE'])('%s is passed on like any method, whatever comes with it', async (method) => {
    const { text } = await exchangeRaw(sidecar.dataUrl, request(`${method} /up/x HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n`))
    expect(statusOf(text)).toBe(200)
    expect(provider.received.at(-1)?.method).toBe(method)
  })
})

describe('what does not cross', () => {
  it('credentials, claims about the caller and hop-by-hop fields of the request are removed', async () => {
    const seen = await echoed({
      authorization: 'Bearer app',
      cookie: 'a=b',
      forwarded: 'for=1.2.3.4',
      'x-forwarded-host': 'evil.test',
      'x-http-method-override': 'DELETE',
      'x-original-url': '/admin',
      baggage: 'a=b',
      'client-cert': 'x',
      'attache-timeout': '5s',
      prefer: 'wait=5, return=minimal',
      'x-mine': 'kept'
    })
    // with `credential: none` the Authorization field is the app's own business
    expect(seen['authorization']).toBe('Bearer app')
    for (const name of [
      'cookie',
      'forwarded',
      'x-forwarded-host',
      'x-http-method-override',
      'x-original-url',
      'baggage',
      'client-cert',
      'attache-timeout',
      'sec-fetch-mode'
    ])
      expect(seen[name], name).toBeUndefined()
    expect(seen['x-mine']).toBe('kept')
    expect(seen['prefer']).toBe('return=minimal')
  })

  it('an alias of a field we set never reaches the provider', async () => {
    await get('/up/x', 's4_tenantid: evil\r\nS4.TenantId: evil\r\nS4-TENANTID: evil\r\n')
    const names = provider.received.at(-1)?.fields.filter((_, i) => i % 2 === 0) ?? []
    expect(names.filter((name) => /s4.tenantid/i.test(name))).toEqual(['S4-TenantId'])
  })

  it('fields named by Connection are for this hop only', async () => {
    await get('/up/x', 'X-Secret-Hop: 1\r\nTE: trailers\r\nKeep-Alive: timeout=5\r\nUpgrade: foo\r\n'.replace('TE:', 'Connection: x-secret-hop\r\nTE:'))
    const headers = provider.received.at(-1)?.headers ?? {}
    expect(headers['x-secret-hop']).toBeUndefined()
    expect(headers['te']).toBeUndefined()
    expect(headers['upgrade']).toBeUndefined()
  })

  it('fields that would act on localhost in a browser are removed from answers', async () => {
    const { headers } = await fetch(`${sidecar.dataUrl}/up/browser`)
    for (const name of ['set-cookie', 'access-control-allow-origin', 'strict-transport-security', 'alt-svc', 'clear-site-data', 'refresh', 'proxy-status']) {
      expect(headers.get(name), name).toBeNull()
    }
    expect(headers.get('x-kept')).toBe('yes')
  })

  it('references to the provider become paths of the sidecar, others stay', async () => {
    const created = await fetch(`${sidecar.dataUrl}/up/created`, { method: 'POST' })
    expect(created.headers.get('location')).toBe('/up/items/7?x=1')
    expect(created.headers.get('content-location')).toBe('/up/items/7')
    expect(created.headers.get('link')).toBe('</up/next>; rel="next"; title="a, <b>", <https://elsewhere.test/x>; rel=other')
    const foreign = await fetch(`${sidecar.dataUrl}/up/foreign`, { redirect: 'manual' })
    expect(foreign.status).toBe(302)
    expect(foreign.headers.get('location')).toBe('https://elsewhere.test/items/7')
  })
})

describe('what is added', () => {
  it('the provider learns who calls and that a proxy does', async () => {
    const seen = await echoed({ 'user-agent': 'my-app' })
    expect(seen['user-agent']).toMatch(/^attache\/\d+\.\d+\.\d+ \(\+mailto:dev@example\.test\)$/)
    expect(seen['via']).toBe('1.1 attache')
    expect(seen['s4-tenantid']).toBe('tenant-1')
    expect(seen['host']).toBe(new URL(provider.url).host)
  })

  it('the app learns how many calls were made and how long they took', async () => {
    const { headers } = await fetch(`${sidecar.dataUrl}/up/x`)
    expect(headers.get('attache-attempts')).toBe('1')
    expect(headers.get('via')).toBe('1.1 attache')
    expect(headers.get('server-timing')).toMatch(/^attache;dur=[\d.]+, upstream;dur=[\d.]+/)
  })
})

describe('who is listened to', () => {
  const refused: [string, string, number, string][] = [
    ['a Host that is not ours', 'GET /up/x HTTP/1.1\r\nHost: evil.example\r\n\r\n', 421, 'host-not-allowed'],
    ['our name with another port', 'GET /up/x HTTP/1.1\r\nHost: localhost:1\r\n\r\n', 421, 'host-not-allowed'],
    ['two Host fields', 'GET /up/x HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\n\r\n', 400, 'host-not-allowed'],
    ['HTTP/1.0 without Host', 'GET /up/x HTTP/1.0\r\n\r\n', 400, 'host-not-allowed'],
    ['no Host', 'GET /up/x HTTP/1.1\r\n\r\n', 400, 'host-not-allowed'],
    ['an Origin', 'GET /up/x HTTP/1.1\r\nHost: HOST\r\nOrigin: https://evil.test\r\n\r\n', 403, 'origin-not-allowed'],
    ['a page of another site', 'GET /up/x HTTP/1.1\r\nHost: HOST\r\nSec-Fetch-Site: cross-site\r\n\r\n', 403, 'origin-not-allowed'],
    ['a navigation', 'GET /up/x HTTP/1.1\r\nHost: HOST\r\nSec-Fetch-Mode: navigate\r\n\r\n', 403, 'origin-not-allowed'],
    ['a preflight', 'OPTIONS /up/x HTTP/1.1\r\nHost: HOST\r\nAccess-Control-Request-Method: PUT\r\n\r\n', 403, 'origin-not-allowed'],
    ['TRACE', 'TRACE /up/x HTTP/1.1\r\nHost: HOST\r\n\r\n', 405, 'bad-request'],
    ['CONNECT', 'CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n', 405, 'bad-request'],
    ['a target in absolute form', 'GET http://evil.test/up/x HTTP/1.1\r\nHost: HOST\r\n\r\n', 400, 'bad-request'],
    ['a dot segment', 'GET /up/../admin HTTP/1.1\r\nHost: HOST\r\n\r\n', 400, 'bad-request'],
    ['an encoded dot segment', 'GET /up/a%2f..%2f..%2fadmin HTTP/1.1\r\nHost: HOST\r\n\r\n', 400, 'bad-request'],
    ['a doubly encoded dot segment', 'GET /up/%252e%252e/admin HTTP/1.1\r\nHost: HOST\r\n\r\n', 400, 'bad-request'],
    ['a dot segment with parameters', 'GET /up/..;a=b/admin HTTP/1.1\r\nHost: HOST\r\n\r\n', 400, 'bad-request'],
    ['a backslash', 'GET /up/..\\admin HTTP/1.1\r\nHost: HOST\r\n\r\n', 400, 'bad-request'],
    ['a fragment', 'GET /up/x#foo HTTP/1.1\r\nHost: HOST\r\n\r\n', 400, 'bad-request'],
    ['an encoded NUL', 'GET /up/x%00y HTTP/1.1\r\nHost: HOST\r\n\r\n', 400, 'bad-request'],
    ['the prefix spelled otherwise', 'GET /%75p/x HTTP/1.1\r\nHost: HOST\r\n\r\n', 404, 'unknown-upstream'],
    ['a longer first segment', 'GET /upX/x HTTP/1.1\r\nHost: HOST\r\n\r\n', 404, 'unknown-upstream'],
    ['two Content-Length fields', 'POST /up/x HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na', 400, 'bad-request'],
    ['both framings at once', 'POST /up/x HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', 400, 'bad-request'],
    ['a header over the limit', `GET /up/x HTTP/1.1\r\nHost: HOST\r\nX-Big: ${'x'.repeat(17_000)}\r\n\r\n`, 431, 'headers-too-large'],
    ['our own Via', 'GET /up/x HTTP/1.1\r\nHost: HOST\r\nVia: 1.1 attache\r\n\r\n', 508, 'bad-request'],
    ['bytes that are not HTTP', '\x16\x03\x01\x02\x00\x01\x00', 400, 'bad-request']
  ]
  it.each(refused)('%s is refused, and the provider hears nothing', async (_name, bytes, status, code) => {
    const before = provider.received.length
    const { text } = await exchangeRaw(sidecar.dataUrl, request(bytes))
    expect(statusOf(text)).toBe(status)
    expect(text).toContain(`urn:attache:problem:${code}`)
    expect(text.toLowerCase()).toContain('content-type: application/problem+json')
    expect(text).toMatch(/proxy-status: attache; error=/i)
    expect(provider.received.length).toBe(before)
  })

  it('a caller must bring its secret where clients are configured', async () => {
    const guarded = await testSidecar(`clients: { app: "\${CALLER}" }\nupstreams: { up: { baseUrl: "${provider.url}/base" } }`, {
      environment: { CALLER: 'secret-of-the-app' }
    })
    try {
      expect((await fetch(`${guarded.dataUrl}/up/x`)).status).toBe(403)
      expect((await fetch(`${guarded.dataUrl}/up/x`, { headers: { 'attache-client': 'secret-of-the-ap' } })).status).toBe(403)
      expect((await fetch(`${guarded.dataUrl}/up/x`, { headers: { 'attache-client': 'secret-of-the-app' } })).status).toBe(200)
      expect(provider.received.at(-1)?.headers['attache-client']).toBeUndefined()
    } finally {
      await guarded.stop()
    }
  })
})

describe('a provider that misbehaves', () => {
  const answers: [string, string, number, string][] = [
    ['two Location fields', 'HTTP/1.1 201 Created\r\nLocation: /a\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n', 502, 'upstream-protocol'],
    ['a status of four digits', 'HTTP/1.1 9999 What\r\nContent-Length: 0\r\n\r\n', 502, 'upstream-protocol'],
    ['a status out of range', 'HTTP/1.1 777 What\r\nContent-Length: 0\r\n\r\n', 502, 'upstream-protocol'],
    ['two lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab', 502, 'upstream-protocol'],
    ['a banner of another protocol', 'SSH-2.0-OpenSSH_9.0\r\n', 502, 'upstream-protocol'],
    ['a header of 100 KiB', `HTTP/1.1 200 OK\r\nX-Big: ${'x'.repeat(100_000)}\r\nContent-Length: 0\r\n\r\n`, 502, 'upstream-protocol']
  ]
  it.each(answers)('%s becomes a problem of ours, and the process lives on', async (_name, bytes, status, code) => {
    const broken = createServer((socket) => {
      socket.on('error', () => socket.destroy())
      socket.once('data', () => socket.end(Buffer.from(bytes, 'latin1')))
    })
    await new Promise<void>((resolve) => broken.listen(0, '127.0.0.1', resolve))
    const { port } = broken.address() as AddressInfo
    const beside = await testSidecar(`upstreams: { broken: { baseUrl: "http://127.0.0.1:${port}", retry: { attempts: 1 } } }`)
    try {
      const answer = await fetch(`${beside.dataUrl}/broken/x`)
      expect(answer.status).toBe(status)
      expect(((await answer.json()) as { type: string }).type).toBe(`urn:attache:problem:${code}`)
      expect((await fetch(`${beside.adminUrl}/livez`)).status).toBe(200)
    } finally {
      await beside.stop()
      broken.close()
    }
  })

  it('trailers and an unannounced Trailer field do not reach the app', async () => {
    const trailing = createServer((socket) => {
      socket.once('data', () =>
        socket.end('HTTP/1.1 200 OK\r\nTrailer: Set-Cookie\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nSet-Cookie: evil=1\r\n\r\n')
      )
    })
    await new Promise<void>((resolve) => trailing.listen(0, '127.0.0.1', resolve))
    const { port } = trailing.address() as AddressInfo
    const beside = await testSidecar(`upstreams: { t: { baseUrl: "http://127.0.0.1:${port}" } }`)
    try {
      const { text } = await exchangeRaw(beside.dataUrl, `GET /t/x HTTP/1.1\r\nHost: ${new URL(beside.dataUrl).host}\r\nConnection: close\r\n\r\n`)
      expect(text).toContain('abc')
      expect(text.toLowerCase()).not.toContain('trailer')
      expect(text).not.toContain('evil')
    } finally {
      await beside.stop()
      trailing.close()
    }
  })

  it.each([1, 400])('a trailer named Content-Length changes nothing about a body of %i chunks', async (chunks) => {
    const trailing = createServer((socket) => {
      socket.on('data', () =>
        socket.write(`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${`3e8\r\n${'x'.repeat(1000)}\r\n`.repeat(chunks)}0\r\nContent-Length: 5\r\n\r\n`)
      )
    })
    await new Promise<void>((resolve) => trailing.listen(0, '127.0.0.1', resolve))
    const { port } = trailing.address() as AddressInfo
    const beside = await testSidecar(`upstreams: { t: { baseUrl: "http://127.0.0.1:${port}" } }`)
    try {
      for (let asked = 0; asked < 2; asked++) expect((await (await fetch(`${beside.dataUrl}/t/x`)).text()).length).toBe(1000 * chunks)
    } finally {
      await beside.stop()
      trailing.close()
    }
  })

  it('a body cut short never looks whole', async () => {
    const cut = createServer((socket) => {
      socket.once('data', () => {
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n${'x'.repeat(100_000)}`)
        setImmediate(() => socket.destroy())
      })
    })
    await new Promise<void>((resolve) => cut.listen(0, '127.0.0.1', resolve))
    const { port } = cut.address() as AddressInfo
    const beside = await testSidecar(`upstreams: { cut: { baseUrl: "http://127.0.0.1:${port}", retry: { attempts: 1 } } }`)
    try {
      await expect(fetch(`${beside.dataUrl}/cut/x`).then((answer) => answer.arrayBuffer())).rejects.toThrow(/terminated|fetch failed/)
    } finally {
      await beside.stop()
      cut.close()
    }
  })
})
