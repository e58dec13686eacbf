import { execFile } from 'node:child_process'
import { createServer as createHttpServer } from 'node:http'
import { connect, createServer, type AddressInfo } from 'node:net'
import { promisify } from 'node:util'
import { afterEach, describe, expect, it } from 'vitest'
import { WebSocketServer } from 'ws'
import { origin, type Origin } from '../support/origin.ts'
import { exchangeRaw, statusOf } from '../support/raw.ts'
import { testSidecar, type TestSidecar } from '../support/sidecar.ts'

const run = promisify(execFile)
const cleanUps: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp()
})

async function started(config: string, options?: Parameters<typeof testSidecar>[1]): Promise<TestSidecar> {
  const sidecar = await testSidecar(config, options)
  cleanUps.push(() => sidecar.stop())
  return sidecar
}
async function provider(...parts: Parameters<typeof origin>): Promise<Origin> {
  const server = await origin(...parts)
  cleanUps.push(() => server.close())
  return server
}

describe('curl as the app', () => {
  it('uploads with Expect: 100-continue, in chunks, asks with HEAD and for a range', async () => {
    const up = await provider((received, response) => {
      if (received.headers.range !== undefined) return void response.writeHead(206, { 'Content-Range': 'bytes 0-1/5', 'Content-Length': 2 }).end('he')
      return void response
        .writeHead(200, { 'Content-Length': received.method === 'HEAD' ? 5 : received.body.length })
        .end(received.method === 'HEAD' ? undefined : received.body)
    })
    const sidecar = await started(`upstreams: { up: { baseUrl: "${up.url}" } }`)
    const url = `${sidecar.dataUrl}/up/x`
    const expecting = await run('curl', ['-s', '-H', 'Expect: 100-continue', '--data-binary', 'a'.repeat(5000), url])
    expect(expecting.stdout).toBe('a'.repeat(5000))
    expect(up.received.at(-1)?.headers['expect']).toBeUndefined()
    const chunked = await run('curl', ['-s', '-H', 'Transfer-Encoding: chunked', '--data-binary', 'in pieces', url])
    expect(chunked.stdout).toBe('in pieces')
    const head = await run('curl', ['-sI', url])
    expect(head.stdout).toMatch(/content-length: 5/i)
    const range = await run('curl', ['-s', '-r', '0-1', '-w', '%{http_code}', url])
    expect(range.stdout).toBe('he206')
  })
})

describe('answers in progress', () => {
  it('an event stream reaches the app event by event', async () => {
    let send: (event: string) => void = () => undefined
    const up = await provider((_received, response) => {
      response.writeHead(200, { 'Content-Type': 'text/event-stream' })
      response.flushHeaders()
      send = (event) => void response.write(`data: ${event}\n\n`)
    })
    const sidecar = await started(`upstreams: { up: { baseUrl: "${up.url}" } }`)
    const leaving = new AbortController()
    const answer = await fetch(`${sidecar.dataUrl}/up/events`, { signal: leaving.signal })
    expect(answer.headers.get('content-type')).toBe('text/event-stream')
    const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader()
    for (const event of ['one', 'two']) {
      send(event)
      expect((await reader?.read())?.value).toBe(`data: ${event}\n\n`)
    }
    leaving.abort()
  })

  it('a caller that hangs up cancels its call at the provider', async () => {
    let closed: (() => void) | undefined
    const wasClosed = new Promise<void>((resolve) => {
      closed = resolve
    })
    const arrived = Promise.withResolvers<void>()
    const up = await provider((_received, _response, message) => {
      message.socket.once('close', () => closed?.())
      arrived.resolve()
    })
    const sidecar = await started(`upstreams: { up: { baseUrl: "${up.url}" } }`)
    const leaving = new AbortController()
    const call = fetch(`${sidecar.dataUrl}/up/slow`, { signal: leaving.signal })
    await arrived.promise
    leaving.abort()
    await expect(call).rejects.toThrow(/abort/)
    await wasClosed
    expect(up.received).toHaveLength(1)
  })

  it('early hints are handed on ahead of the answer', async () => {
    const server = createServer((socket) => {
      socket.once('data', () => socket.end('HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    cleanUps.push(async () => server.close())
    const sidecar = await started(`upstreams: { up: { baseUrl: "http://127.0.0.1:${(server.address() as AddressInfo).port}" } }`)
    const { text } = await exchangeRaw(sidecar.dataUrl, `GET /up/x HTTP/1.1\r\nHost: ${new URL(sidecar.dataUrl).host}\r\nConnection: close\r\n\r\n`)
    expect(text).toMatch(/^HTTP\/1\.1 103 Early Hints\r\nLink: <\/up\/style\.css>; rel=preload\r\n/i)
    expect(text).toMatch(/HTTP\/1\.1 200 OK/)
    expect(text.endsWith('ok')).toBe(true)
  })
})

describe('websockets', () => {
  it('pass through with the configured headers and the credential added, and nothing of the app’s own', async () => {
    const server = createHttpServer()
    const sockets = new WebSocketServer({ server })
    let upgrade: Record<string, unknown> = {}
    sockets.on('connection', (socket, message) => {
      upgrade = { url: message.url, ...message.headers }
      socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    cleanUps.push(async () => {
      sockets.close()
      server.close()
    })
    const sidecar = await started(
      `
credentials: { key: { grant: static, header: X-Api-Key, value: "\${KEY}" } }
upstreams: { up: { baseUrl: "http://127.0.0.1:${(server.address() as AddressInfo).port}/base", credential: key, headers: { X-Tenant: t1 } } }`,
      { environment: { KEY: 'k-123' } }
    )
    const socket = new WebSocket(`${sidecar.dataUrl.replace('http', 'ws')}/up/live?x=1`)
    const echoed = await new Promise<unknown>((resolve, reject) => {
      socket.addEventListener('open', () => socket.send('hello'))
      socket.addEventListener('message', (event) => resolve(event.data))
      socket.addEventListener('error', () => reject(new Error('the websocket failed')))
    })
    socket.close()
    expect(echoed).toBe('hello')
    expect(upgrade).toMatchObject({ url: '/base/live?x=1', 'x-api-key': 'k-123', 'x-tenant': 't1' })
    expect(upgrade['cookie']).toBeUndefined()
  })

  it('are operations like any other: agreed or not sent, counted, and refused while the breaker is open', async () => {
    const server = createHttpServer((_message, response) => response.writeHead(200).end('no websocket here'))
    const sockets = new WebSocketServer({ server, path: '/live' })
    sockets.on('connection', (socket) => socket.close(4000, 'that was all'))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    cleanUps.push(async () => {
      sockets.close()
      server.close()
    })
    const sidecar = await started(
      `upstreams: { up: { baseUrl: "http://127.0.0.1:${(server.address() as AddressInfo).port}", operations: { allow: ["GET /live"] }, volume: { limits: ["2/1h"], onExceed: reject } } }`
    )
    const { host } = new URL(sidecar.dataUrl)
    const shake = (path: string): Promise<{ text: string; closed: boolean }> =>
      exchangeRaw(
        sidecar.dataUrl,
        `GET /up/${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`,
        { until: /that was all$|"upstream":"up"/ }
      )
    expect(statusOf((await shake('elsewhere')).text)).toBe(404)
    const first = await shake('live')
    expect(first.text).toMatch(
      /^HTTP\/1\.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n[^]*sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=\r\n[^]*that was all$/i
    )
    expect(statusOf((await shake('live')).text)).toBe(101)
    expect(statusOf((await shake('live')).text)).toBe(429)
    await fetch(`${sidecar.adminUrl}/api/breakers/up`, { method: 'PUT', headers: { 'content-type': 'application/json' }, body: '{"state":"open"}' })
    expect(statusOf((await shake('live')).text)).toBe(503)
    expect(await sidecar.metric('attache_attempts_total', { upstream: 'up', code: '101' })).toBe(2)
    expect(await sidecar.metric('attache_requests_total', { upstream: 'up', code: '101', source: 'upstream' })).toBe(2)
  })

  it('carry much more than memory holds, as fast as it is taken', async () => {
    const server = createHttpServer()
    server.on('upgrade', (_message, socket) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
      socket.pipe(socket)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    cleanUps.push(async () => server.close())
    const sidecar = await started(`upstreams: { up: { baseUrl: "http://127.0.0.1:${(server.address() as AddressInfo).port}" } }`)
    const { hostname, port, host } = new URL(sidecar.dataUrl)
    const piece = Buffer.alloc(1024 * 1024, 'x')
    const received = await new Promise<number>((resolve) => {
      let bytes = 0
      const socket = connect(Number(port), hostname, () =>
        socket.write(`GET /up/x HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`)
      )
      socket.once('data', () => {
        for (let i = 0; i < 20; i++) socket.write(piece)
        socket.on('data', (chunk: Buffer) => {
          bytes += chunk.length
          if (bytes === 20 * piece.length) socket.end()
        })
      })
      socket.on('close', () => resolve(bytes))
    })
    expect(received).toBe(20 * piece.length)
  })

  it('are refused to browsers like everything else', async () => {
    const up = await provider()
    const sidecar = await started(`upstreams: { up: { baseUrl: "${up.url}" } }`)
    const { text } = await exchangeRaw(
      sidecar.dataUrl,
      `GET /up/x HTTP/1.1\r\nHost: ${new URL(sidecar.dataUrl).host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: https://evil.test\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`
    )
    expect(statusOf(text)).toBe(403)
    expect(up.received).toHaveLength(0)
  })
})

describe('browser origins that are listed', () => {
  it('get their preflight answered here and may read the answer', async () => {
    const up = await provider()
    const sidecar = await started(`allowOrigins: ["http://app.test"]\nupstreams: { up: { baseUrl: "${up.url}" } }`)
    const preflight = await exchangeRaw(
      sidecar.dataUrl,
      `OPTIONS /up/x HTTP/1.1\r\nHost: ${new URL(sidecar.dataUrl).host}\r\nOrigin: http://app.test\r\nAccess-Control-Request-Method: PUT\r\nConnection: close\r\n\r\n`
    )
    expect(statusOf(preflight.text)).toBe(204)
    expect(preflight.text).toMatch(/access-control-allow-origin: http:\/\/app\.test/i)
    expect(up.received).toHaveLength(0)
    const answer = await exchangeRaw(
      sidecar.dataUrl,
      `GET /up/x HTTP/1.1\r\nHost: ${new URL(sidecar.dataUrl).host}\r\nOrigin: http://app.test\r\nConnection: close\r\n\r\n`
    )
    expect(statusOf(answer.text)).toBe(200)
    expect(answer.text).toMatch(/access-control-allow-origin: http:\/\/app\.test/i)
  })

  it('are named once, in place of what a provider may say of them, which everybody else is told', async () => {
    const up = await provider((_received, response) => void response.writeHead(200, { 'Access-Control-Allow-Origin': '*' }).end('ok'))
    const sidecar = await started(
      `allowOrigins: ["http://app.test"]\nupstreams: { up: { baseUrl: "${up.url}", pass: { response: [Access-Control-Allow-Origin] } } }`
    )
    const page = await fetch(`${sidecar.dataUrl}/up/x`, { headers: { Origin: 'http://app.test' } })
    expect([page.status, page.headers.get('access-control-allow-origin')]).toEqual([200, 'http://app.test'])
    expect((await fetch(`${sidecar.dataUrl}/up/x`)).headers.get('access-control-allow-origin')).toBe('*')
  })
})

describe('ports', () => {
  it('an upstream with a port of its own is mounted at its root, and sockets of the file system work', async () => {
    const up = await provider((_received, response) => void response.writeHead(201, { Location: '/base/items/1' }).end())
    const sidecar = await started(`listen: "unix:./app.sock"\nupstreams: { up: { baseUrl: "${up.url}/base" } }`)
    const { stdout } = await run('curl', ['-si', '--unix-socket', `${sidecar.folder}/app.sock`, 'http://localhost/up/x'])
    expect(stdout).toMatch(/^HTTP\/1\.1 201/)
    expect(stdout).toMatch(/location: \/up\/items\/1/i)
  })
})

describe('draining', () => {
  it('lets a request under way finish, tells callers to go elsewhere and ends with 0', async () => {
    const release = Promise.withResolvers<void>()
    const arrived = Promise.withResolvers<void>()
    const up = await provider((_received, response) => {
      arrived.resolve()
      void release.promise.then(() => response.end('late'))
    })
    const sidecar = await testSidecar(`upstreams: { up: { baseUrl: "${up.url}" } }`)
    const call = fetch(`${sidecar.dataUrl}/up/x`)
    await arrived.promise
    const stopped = sidecar.stop()
    expect((await fetch(`${sidecar.adminUrl}/readyz`)).status).toBe(503)
    release.resolve()
    const answer = await call
    expect(await answer.text()).toBe('late')
    expect(answer.headers.get('connection')).toBe('close')
    expect(await stopped).toBe(0)
  })
})

describe('reloading', () => {
  it('puts a new upstream in force without closing anything, and keeps the old config when the new one is broken', async () => {
    const one = await provider((_received, response) => void response.end('one'))
    const two = await provider((_received, response) => void response.end('two'))
    const sidecar = await started(`upstreams: { up: { baseUrl: "${one.url}" } }`)
    expect(await (await fetch(`${sidecar.dataUrl}/up/x`)).text()).toBe('one')
    sidecar.rewrite(`upstreams: { up: { baseUrl: "${two.url}" } }`)
    await sidecar.reload()
    expect(await (await fetch(`${sidecar.dataUrl}/up/x`)).text()).toBe('two')
    sidecar.rewrite(`upstreams: { up: { basUrl: "${one.url}" } }`)
    await sidecar.reload()
    expect(await (await fetch(`${sidecar.dataUrl}/up/x`)).text()).toBe('two')
    expect(await sidecar.metric('attache_config_reloads_total', { result: 'failure' })).toBe(1)
    expect(await sidecar.metric('attache_config_reloads_total', { result: 'success' })).toBe(1)
  })
})
