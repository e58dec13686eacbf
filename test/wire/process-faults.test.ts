import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { Agent, createServer as createHttpServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import { origin } from '../support/origin.ts'
import { sidecarProcess, type SidecarProcess } from '../support/process.ts'
import { stopwatch, type Stopwatch } from '../support/stopwatch.ts'

const cleanUps: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp()
})

/** A provider that answers as told. */
async function provider(
  answer: (message: IncomingMessage, response: ServerResponse) => void = (_message, response) => void response.end('ok')
): Promise<string> {
  const server = createHttpServer(answer)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  cleanUps.push(() => {
    server.closeAllConnections()
    return new Promise((resolve) => server.close(resolve))
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

async function started(
  baseUrl: string,
  options: Parameters<typeof sidecarProcess>[1] & { more?: string; upstream?: string } = {}
): Promise<SidecarProcess & { rewrite(more: string): void }> {
  const folder = mkdtempSync(join(tmpdir(), 'attache-process-'))
  const file = join(folder, 'attache.yaml')
  const rewrite = (more: string): void =>
    writeFileSync(
      file,
      `listen: 127.0.0.1:0\nadmin: { listen: 127.0.0.1:0 }\nstate: "memory:"\nlog: { level: info }\n${more}\nupstreams: { up: { baseUrl: "${baseUrl}", ${options.upstream ?? ''} } }\n`
    )
  rewrite(options.more ?? '')
  const sidecar = await sidecarProcess(file, options)
  cleanUps.push(async () => {
    await sidecar.end('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  })
  return { ...sidecar, rewrite }
}

function opened(url: string): Promise<Socket> {
  const { hostname, port } = new URL(url)
  return new Promise((resolve) => {
    const socket = connect(Number(port), hostname, () => resolve(socket))
    socket.on('error', () => socket.destroy())
    socket.on('close', () => resolve(socket))
  })
}

describe('SIGTERM', () => {
  it('ends an idle process within a second, connections of callers or not', async () => {
    for (const callers of [0, 3]) {
      const sidecar = await started(await provider())
      for (let i = 0; i < callers; i++) await opened(sidecar.dataUrl)
      const taken = timed(sidecar)
      expect(await sidecar.end('SIGTERM')).toBe(0)
      expect(taken.ms()).toBeLessThan(1500)
    }
  })

  it('a second time ends it at once, and says so', async () => {
    const arrived = Promise.withResolvers<void>()
    const sidecar = await started(await provider(() => arrived.resolve()))
    const call = fetch(`${sidecar.dataUrl}/up/x`).catch((error: unknown) => error)
    await arrived.promise
    sidecar.signal('SIGTERM')
    await sidecar.line(/"msg":"drain/)
    const taken = timed(sidecar)
    expect(await sidecar.end('SIGINT')).toBe(1)
    expect(taken.ms()).toBeLessThan(1000)
    expect(await call).toBeInstanceOf(Error)
  })

  it('waits for a stream as long as drain says, then counts it as lost', async () => {
    const sidecar = await started(await provider((_message, response) => void response.writeHead(200).write('begun')), {
      more: 'drain: 1s'
    })
    const answer = await fetch(`${sidecar.dataUrl}/up/x`)
    const from = performance.now()
    const taken = timed(sidecar)
    expect(await sidecar.end('SIGTERM')).toBe(1)
    expect(performance.now() - from).toBeGreaterThan(1000)
    expect(taken.ms()).toBeLessThan(2500)
    expect(sidecar.output()).toContain('"lost":1')
    await expect(answer.text()).rejects.toThrow(/terminated/)
  })

  it('loses nothing and doubles nothing while callers with keep-alive connections go on asking', { timeout: 90_000 }, async () => {
    for (let cycle = 0; cycle < 3; cycle++) {
      const ledger = new Map<string, number>()
      const base = await provider((message, response) => {
        const id = message.url ?? ''
        ledger.set(id, (ledger.get(id) ?? 0) + 1)
        message.resume()
        message.on('end', () => setTimeout(() => response.end(id), 5 + (id.length % 3) * 20))
      })
      const sidecar = await started(base)
      const agent = new Agent({ keepAlive: true, maxSockets: 25 })
      const answered: string[] = []
      const failures: string[] = []
      let isOver = false
      const callers = Array.from({ length: 25 }, async (_, caller) => {
        for (let i = 0; !isOver; i++) {
          const id = `/x/${cycle}/${caller}/${'i'.repeat(i % 3)}${i}`
          const outcome = await ask(agent, `${sidecar.dataUrl}/up${id}`, i % 2 === 0 ? 'GET' : 'POST')
          if (outcome === 'refused') return
          if (outcome === id) answered.push(id)
          // the kernel resets what stands in the queue of a closing listener: nobody had taken that new connection in
          else if (outcome === 'reset at the door' && !ledger.has(id)) return
          else failures.push(`${id} ${outcome}`)
        }
      })
      while (answered.length < 200) await pause(5)
      const taken = timed(sidecar)
      expect(await sidecar.end('SIGTERM')).toBe(0)
      expect(taken.ms()).toBeLessThan(2000)
      isOver = true
      await Promise.all(callers)
      agent.destroy()
      expect(failures).toEqual([])
      expect([...ledger.keys()].toSorted()).toEqual(answered.toSorted())
      expect([...ledger.values()].filter((times) => times !== 1)).toEqual([])
    }
  })
})

/** A stopwatch on the process, for what it takes to end. */
function timed(sidecar: SidecarProcess): Stopwatch {
  const watch = stopwatch(sidecar.pid)
  cleanUps.push(() => watch.stop())
  return watch
}

/** The body of the answer, `refused` where nobody listens any more, `reset at the door` where that befell a connection made for this, else what went wrong. */
function ask(agent: Agent, url: string, method: string): Promise<string> {
  return new Promise((resolve) => {
    const asking = httpRequest(url, { agent, method }, (answer) => {
      let text = ''
      answer.setEncoding('utf8').on('data', (piece: string) => (text += piece))
      answer.on('end', () => resolve(answer.statusCode === 200 ? text.replace(/^\/up/, '') : String(answer.statusCode)))
      answer.on('error', (error) => resolve(error.message))
    })
    asking.on('error', ({ code = 'error' }: NodeJS.ErrnoException) =>
      resolve(code === 'ECONNREFUSED' ? 'refused' : code === 'ECONNRESET' && !asking.reusedSocket ? 'reset at the door' : code)
    )
    asking.end(method === 'POST' ? 'body' : undefined)
  })
}

describe('a process that is held up', () => {
  it('for longer than any timeout fails no request whose answer is there, and takes the breaker nowhere', async () => {
    const arrived = Promise.withResolvers<void>()
    let count = 0
    const base = await provider((_message, response) => {
      count += 1
      if (count === 41) arrived.resolve()
      setTimeout(() => response.end('x'.repeat(100_000)), 300)
    })
    const sidecar = await started(base, {
      upstream: 'timeout: { connect: 4s, response: 4s, idle: 4s, total: 5s }, breaker: { failures: 1 }, retry: { attempts: 1 }'
    })
    await (await fetch(`${sidecar.dataUrl}/up/warm`)).text()
    const calls = Array.from({ length: 40 }, (_, i) => fetch(`${sidecar.dataUrl}/up/${i}`, { method: i % 3 === 0 ? 'POST' : 'GET' }))
    await arrived.promise
    sidecar.signal('SIGSTOP')
    await pause(5500)
    sidecar.signal('SIGCONT')
    for (const answer of await Promise.all(calls)) {
      expect(answer.status).toBe(200)
      expect((await answer.text()).length).toBe(100_000)
    }
    const metrics = await (await fetch(`${sidecar.adminUrl}/metrics`)).text()
    expect(metrics).not.toMatch(/^attache_breaker_state\{[^}]*state="open"[^}]*\} 1/m)
  })
})

describe('a process with few open files', () => {
  it('turns callers away, and serves again as soon as they have gone', { timeout: 180_000 }, async () => {
    const sidecar = await started(await provider(), { openFiles: 128, upstream: 'retry: { attempts: 1 }' })
    expect((await fetch(`${sidecar.dataUrl}/up/x`)).status).toBe(200)
    const { host } = new URL(sidecar.dataUrl)
    const callers = await Promise.all(Array.from({ length: 500 }, () => opened(sidecar.dataUrl)))
    for (const caller of callers) caller.write(`GET /up/x HTTP/1.1\r\nHost: ${host}\r\n\r\n`)
    expect((await fetch(`${sidecar.adminUrl}/livez`)).status).toBe(200)
    const before = cpuSeconds(sidecar.pid)
    await pause(500)
    expect(cpuSeconds(sidecar.pid) - before).toBeLessThan(0.4)
    for (const caller of callers) caller.destroy()
    const taken = timed(sidecar)
    while (((await fetch(`${sidecar.dataUrl}/up/x`).catch((error: Error) => error)) as { status?: number }).status !== 200) await pause(50)
    expect(taken.ms()).toBeLessThan(5000)
    const metrics = await (await fetch(`${sidecar.adminUrl}/metrics`)).text()
    expect(metrics).not.toMatch(/^attache_breaker_state\{[^}]*state="open"[^}]*\} 1/m)
    expect(sidecar.output()).toContain('ulimit -n')
  })
})

describe('a storm of connections', () => {
  it('of two thousand at once leaves those who were there before served, and nothing behind', { timeout: 120_000 }, async () => {
    const sidecar = await started(await provider(), { more: 'limits: { connections: 300 }' })
    const agent = new Agent({ keepAlive: true, maxSockets: 5 })
    cleanUps.push(() => agent.destroy())
    for (let i = 0; i < 5; i++) expect(await ask(agent, `${sidecar.dataUrl}/up/x`, 'GET')).toBe('ok')
    const storm = Promise.all(Array.from({ length: 2000 }, () => opened(sidecar.dataUrl)))
    for (let i = 0; i < 100; i++) expect(await ask(agent, `${sidecar.dataUrl}/up/x`, 'GET')).toBe('ok')
    for (const socket of await storm) socket.destroy()
    while (openFiles(sidecar.pid) >= 60) await pause(20)
  })
})

describe('memory', () => {
  it('does not grow with what passes through, but for what the collector has not looked at yet: 200 MiB up, 200 MiB down', { timeout: 120_000 }, async () => {
    const size = 200 * 1024 * 1024
    const base = await provider((message, response) => {
      if (message.method === 'POST') return void message.resume().on('end', () => response.end('ok'))
      response.writeHead(200)
      let left = size
      const more = (): void => {
        while (left > 0) {
          left -= 65_536
          if (!response.write(Buffer.alloc(65_536))) return
        }
        response.end()
      }
      response.on('drain', more)
      return more()
    })
    const sidecar = await started(base, { more: 'limits: { bodyBytes: 1GiB }' })
    await (await fetch(`${sidecar.dataUrl}/up/x`, { method: 'POST', body: Buffer.alloc(3_000_000) })).text()
    const before = peakBytes(sidecar.pid)
    expect(await passed(`${sidecar.dataUrl}/up/x`, size, 'POST')).toBe(2)
    expect(await passed(`${sidecar.dataUrl}/up/x`, 0, 'GET')).toBe(size)
    expect((peakBytes(sidecar.pid) - before) / 1024 / 1024).toBeLessThan(100)
  })
})

/** Sends that many bytes; gives how many came back. */
function passed(url: string, bytes: number, method: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const asking = httpRequest(url, { method, headers: bytes > 0 ? { 'content-length': bytes } : {} }, (answer) => {
      let received = 0
      answer.on('data', (piece: Buffer) => (received += piece.length))
      answer.on('end', () => resolve(received))
    })
    asking.on('error', reject)
    let left = bytes
    const more = (): void => {
      while (left > 0) {
        left -= 65_536
        if (!asking.write(Buffer.alloc(65_536))) return
      }
      asking.end()
    }
    asking.on('drain', more)
    more()
  })
}

describe('what surrounds the process', () => {
  it('names no proxy for it: neither provider nor token service is asked through one', async () => {
    const proxied: string[] = []
    const proxy = createServer((socket) => void socket.once('data', (chunk: Buffer) => proxied.push(chunk.toString('latin1'))))
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve))
    cleanUps.push(() => void proxy.close())
    const address = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`
    const sidecar = await started(await provider(), {
      environment: { HTTP_PROXY: address, http_proxy: address, HTTPS_PROXY: address, ALL_PROXY: address, NODE_USE_ENV_PROXY: '1' }
    })
    expect(await (await fetch(`${sidecar.dataUrl}/up/x`)).text()).toBe('ok')
    expect(proxied).toEqual([])
  })

  it('opens no debugger in it, and a storm of reloads costs no request', async () => {
    const sidecar = await started(await provider())
    for (let i = 0; i < 100; i++) {
      sidecar.signal(i % 2 === 0 ? 'SIGHUP' : 'SIGUSR1')
      expect((await fetch(`${sidecar.dataUrl}/up/${i}`)).status).toBe(200)
    }
    expect(sidecar.output()).not.toMatch(/debugger/i)
    sidecar.rewrite('listen: [')
    sidecar.signal('SIGHUP')
    expect((await fetch(`${sidecar.dataUrl}/up/x`)).status).toBe(200)
    expect(await sidecar.end('SIGTERM')).toBe(0)
  })

  it('reaches it on loopback only', async () => {
    const sidecar = await started((await origin()).url)
    const listening = readFileSync(`/proc/${sidecar.pid}/net/tcp`, 'utf8') + readFileSync(`/proc/${sidecar.pid}/net/tcp6`, 'utf8')
    for (const url of [sidecar.dataUrl, sidecar.adminUrl]) {
      const port = Number(new URL(url).port).toString(16).toUpperCase().padStart(4, '0')
      const addresses = listening.split('\n').filter((line) => new RegExp(`:${port} [0-9A-F:]+ 0A `).test(line))
      expect(addresses.map((line) => line.trim().split(' ')[1])).toEqual([`0100007F:${port}`])
    }
  })
})

function cpuSeconds(pid: number): number {
  const [user, system] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ').slice(11, 13).map(Number) ?? []
  return ((user ?? 0) + (system ?? 0)) / 100
}

function openFiles(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length
}

function peakBytes(pid: number): number {
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1024
}
