import { execFile } from 'node:child_process'
import { createServer as createHttpServer } from 'node:http'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { promisify } from 'node:util'
import { afterAll, describe, it } from 'vitest'
import { exchangeRaw, statusOf } from '../support/raw.ts'
import { testSidecar, type TestSidecar } from '../support/sidecar.ts'
import { steadyTime } from '../support/steady-time.ts'
import { scriptedServer, type ScriptedServer } from '../support/scripted.ts'

const run = promisify(execFile)
const OK = { bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok', ending: 'stay' } as const
const time = steadyTime()
const cleanUps: (() => unknown)[] = [() => time.close()]
afterAll(async () => {
  for (const cleanUp of cleanUps.toReversed()) await cleanUp()
})

async function scripted(...parts: Parameters<typeof scriptedServer>): Promise<ScriptedServer> {
  const server = await scriptedServer(...parts)
  cleanUps.push(() => server.close())
  return server
}

async function started(authority: string, more = ''): Promise<TestSidecar> {
  const sidecar = await testSidecar(`
limits: { headerTimeout: 400ms, bodyTimeout: 400ms, bodyBytes: 3MiB }
upstreams: { up: { baseUrl: "http://${authority}", retry: { attempts: 1, bufferBytes: 64KiB }, ${more} } }`)
  cleanUps.push(() => sidecar.stop())
  return sidecar
}

/** A provider at whose door connections are counted, and which does with each as told. */
async function bare(accept: (socket: Socket) => void): Promise<{ authority: string; sockets: Socket[] }> {
  const sockets: Socket[] = []
  const server = createServer((socket) => {
    sockets.push(socket)
    socket.on('error', () => socket.destroy())
    accept(socket)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  cleanUps.push(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { authority: `127.0.0.1:${(server.address() as AddressInfo).port}`, sockets }
}

/** Writes `first`, then `drop` every 40 ms; gives everything that came back once the connection is closed. */
function drip(sidecar: TestSidecar, first: string, drop = ''): Promise<{ text: string; ms: number }> {
  const { hostname, port, host } = new URL(sidecar.dataUrl)
  return new Promise((resolve) => {
    const from = time.now()
    let text = ''
    let timer: NodeJS.Timeout | undefined
    const socket = connect(Number(port), hostname, () => {
      socket.write(first.replaceAll('HOST', host))
      timer = setInterval(() => void (drop !== '' && socket.writable && socket.write(drop)), 40)
    })
    socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')))
    socket.on('error', () => socket.destroy())
    socket.on('close', () => {
      clearInterval(timer)
      resolve({ text, ms: time.now() - from })
    })
  })
}

/** What curl is told for an upload of so many bytes whose length it does not announce, and after how long: in this file's time, as its tests keep each other busy. */
async function upload(sidecar: TestSidecar, sizeBytes: number): Promise<{ text: string; ms: number }> {
  const from = time.now()
  const { stdout } = await run('sh', [
    '-c',
    `head -c ${sizeBytes} /dev/zero | curl -s -m 25 -w ' %{http_code}' -X POST -H Expect: -T - ${sidecar.dataUrl}/up/x`
  ])
  return { text: stdout, ms: time.now() - from }
}

describe.concurrent('a caller that takes its time', () => {
  it.for<[string, string, string]>([
    ['with the first byte', '', ''],
    ['with its header, line by line', 'GET /up/x HTTP/1.1\r\nHost: HOST\r\n', 'X-A: b\r\n'],
    ['with its header, byte by byte', 'GET /up/', 'x'],
    ['with its second header', 'GET /up/x HTTP/1.1\r\nHost: HOST\r\n\r\nGET /up/y HTTP/1.1\r\n', 'X-A: b\r\n'],
    ['with a small body', 'POST /up/x HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1000\r\n\r\n', 'x'],
    ['with a small body in chunks', 'POST /up/x HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n', '1\r\nx\r\n'],
    ['with a body it was asked for', 'POST /up/x HTTP/1.1\r\nHost: HOST\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n', ''],
    ['within the extension of a chunk', 'POST /up/x HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n1;', 'x'],
    ['with the trailers', 'POST /up/x HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n', 'X-A: b\r\n']
  ])('%s gets a 408 and is gone, and the provider never knew', async ([about, first, drop], { expect }) => {
    const provider = await scripted(() => OK)
    const { text, ms } = await drip(await started(provider.authority), first, drop)
    const last = text.slice(text.lastIndexOf('HTTP/1.1 4'))
    expect(statusOf(last)).toBe(408)
    expect(last).toMatch(/^connection: close\r$/im)
    expect(ms).toBeLessThan(3000)
    expect(provider.arrived.length).toBe(about.includes('second') ? 1 : 0)
  })

  it.for<[string, string]>([
    ['stops', ''],
    ['trickles', 'x']
  ])('with a large body that %s gets a 408, and its attempt is broken off', async ([, drop], { expect }) => {
    const gone = Promise.withResolvers<void>()
    const provider = await bare((socket) => {
      socket.resume()
      socket.on('close', () => gone.resolve())
    })
    const sidecar = await started(provider.authority)
    const { text } = await drip(sidecar, `POST /up/x HTTP/1.1\r\nHost: HOST\r\nContent-Length: 2000000\r\n\r\n${'x'.repeat(100_000)}`, drop)
    expect(statusOf(text)).toBe(408)
    await gone.promise
    expect(provider.sockets).toHaveLength(1)
  })

  it('with taking its answer is gone, while others are served', async ({ expect }) => {
    const gone = Promise.withResolvers<void>()
    const provider = createHttpServer((message, response) => {
      if (message.url !== '/endless') return void response.end('ok')
      response.writeHead(200)
      const more = (): void => {
        while (response.write(Buffer.alloc(65_536)));
      }
      response.on('drain', more)
      response.on('close', () => gone.resolve())
      return more()
    })
    await new Promise<void>((resolve) => provider.listen(0, '127.0.0.1', resolve))
    cleanUps.push(() => provider.close())
    const sidecar = await started(`127.0.0.1:${(provider.address() as AddressInfo).port}`)
    const { hostname, port, host } = new URL(sidecar.dataUrl)
    const socket = connect(Number(port), hostname, () => socket.write(`GET /up/endless HTTP/1.1\r\nHost: ${host}\r\n\r\n`))
    socket.once('readable', () => undefined)
    socket.on('error', () => socket.destroy())
    expect((await fetch(`${sidecar.dataUrl}/up/x`)).status).toBe(200)
    await gone.promise
    socket.destroy()
  })

  it('is one of two hundred, and a good one hardly notices', async ({ expect }) => {
    const provider = await scripted(() => OK)
    const sidecar = await started(provider.authority)
    const slow = Promise.all(Array.from({ length: 200 }, () => drip(sidecar, 'GET /up/x HTTP/1.1\r\nHost: HOST\r\n', 'X-A: b\r\n')))
    for (let i = 0; i < 50; i++) expect((await fetch(`${sidecar.dataUrl}/up/x?${i}`)).status).toBe(200)
    const ended = await slow
    expect(ended.filter(({ text }) => statusOf(text) === 408)).toHaveLength(200)
    expect(provider.arrived).toHaveLength(50)
  })
})

describe.concurrent('a body over the limit', () => {
  it('that says so is refused before the provider hears of it', async ({ expect }) => {
    const provider = await bare(() => undefined)
    const sidecar = await started(provider.authority)
    const { text, closed } = await exchangeRaw(
      sidecar.dataUrl,
      `POST /up/x HTTP/1.1\r\nHost: ${new URL(sidecar.dataUrl).host}\r\nContent-Length: 4000000\r\n\r\n${'x'.repeat(500_000)}`
    )
    expect(statusOf(text)).toBe(413)
    expect(text).toMatch(/urn:attache:problem:body-too-large/)
    expect(text).toMatch(/^connection: close\r$/im)
    expect(closed || text.endsWith('}\n')).toBe(true)
    expect(provider.sockets).toHaveLength(0)
  })

  it('that does not say so is refused when it gets there, and the attempt broken off', async ({ expect }) => {
    const gone = Promise.withResolvers<void>()
    const provider = await bare((socket) => {
      socket.resume()
      socket.on('close', () => gone.resolve())
    })
    const sidecar = await started(provider.authority)
    const { text, ms } = await upload(sidecar, 20_000_000)
    expect(text).toMatch(/urn:attache:problem:body-too-large.* 413$/s)
    expect(ms).toBeLessThan(5000)
    await gone.promise
    expect(await sidecar.metric('attache_breaker_state', { upstream: 'up', state: 'open' })).toBe(0)
  })
})

describe.concurrent('an answer before the upload has arrived', () => {
  it.for([401, 413, 429])('%d reaches the caller, whoever it is', async (status, { expect }) => {
    // every request: an upload that has gone out before its answer is read leaves the connection to the next one
    const provider = await bare((socket) =>
      socket.on('data', (chunk: Buffer) => {
        if (chunk.includes('POST /')) socket.write(`HTTP/1.1 ${status} Early\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nearly`)
      })
    )
    const sidecar = await started(provider.authority)
    const body = Buffer.alloc(2_500_000, 'x')
    for (let i = 0; i < 5; i++) {
      const answer = await fetch(`${sidecar.dataUrl}/up/x`, { method: 'POST', body })
      expect([answer.status, await answer.text()]).toEqual([status, 'early'])
    }
    const { text, ms } = await upload(sidecar, 2_500_000)
    expect(text).toBe(`early ${status}`)
    expect(ms).toBeLessThan(5000)
  })

  it('does not end the upload where it streams along with it', async ({ expect }) => {
    const provider = createHttpServer((message, response) => {
      response.writeHead(200)
      message.pipe(response)
    })
    await new Promise<void>((resolve) => provider.listen(0, '127.0.0.1', resolve))
    cleanUps.push(() => provider.close())
    const sidecar = await started(`127.0.0.1:${(provider.address() as AddressInfo).port}`)
    const body = Buffer.alloc(2_500_000, 'x')
    const answer = await fetch(`${sidecar.dataUrl}/up/x`, { method: 'POST', body })
    expect(Buffer.from(await answer.arrayBuffer()).equals(body)).toBe(true)
  })
})
