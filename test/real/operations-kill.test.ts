import { readFileSync, readdirSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { origin, type Origin, type Received } from '../support/origin.ts'
import { outcomeAt } from '../support/outcome.ts'
import { sidecarHome, type SidecarHome, type SidecarProcess } from '../support/process.ts'

let server: Origin
let home: SidecarHome
let answer: (received: Received, response: ServerResponse) => void

beforeEach(async () => {
  answer = (_received, response) => void response.end('done')
  server = await origin((received, response) => answer(received, response))
  home = sidecarHome(`
state: sqlite:./state/attache.db
upstreams:
  up: { baseUrl: "${server.url}/api", retry: { backoff: [50ms], jitter: 0 }, breaker: { failures: 1000 } }
`)
})
afterEach(async () => {
  await home.remove()
  await server.close()
})

async function later(sidecar: SidecarProcess, method: string, path: string): Promise<string> {
  const accepted = await fetch(`${sidecar.dataUrl}/up${path}`, { method, headers: { Prefer: 'respond-async' }, body: 'CANARY-body' })
  expect(accepted.status).toBe(202)
  return accepted.headers.get('location') ?? ''
}

describe('background operations and kill -9', () => {
  it('twenty kills lose no accepted operation, and no POST arrives twice', { timeout: 300_000 }, async () => {
    // some are answered, some hang until the kill, some are refused for the moment
    answer = (_received, response) => {
      const nth = server.received.length % 3
      if (nth === 0) response.end('done')
      else if (nth === 1) response.writeHead(503).end()
    }
    const accepted: { location: string; method: string; path: string }[] = []
    for (let life = 0; life < 20; life++) {
      const sidecar = await home.start()
      for (const method of ['POST', 'PUT']) {
        const path = `/${method}/${life}`
        accepted.push({ location: await later(sidecar, method, path), method, path })
      }
      await sidecar.end('SIGKILL')
    }
    answer = (_received, response) => void response.end('done')
    const last = await home.start()
    for (const { location, method, path } of accepted) {
      const outcome = await outcomeAt(last, location)
      const arrived = server.received.filter(({ url }) => url === `/api${path}`)
      expect(arrived.every(({ body }) => body.toString() === 'CANARY-body')).toBe(true)
      // every attempt the journal may not have seen the end of was cut off by one of the kills
      expect(arrived.length).toBeLessThanOrEqual(method === 'POST' ? 1 : 23)
      // what never arrived has no success to tell of
      expect([path, outcome['status'] === 200 && arrived.length === 0]).toEqual([path, false])
    }
    const state = readdirSync(join(home.folder, 'state')).map((file) => readFileSync(join(home.folder, 'state', file), 'latin1'))
    expect(state.join()).not.toContain('CANARY')
  })

  it('a POST being sent when the process dies ends as outcome-unknown', { timeout: 180_000 }, async () => {
    answer = () => undefined
    const first = await home.start()
    const location = await later(first, 'POST', '/x')
    while (server.received.length === 0) await fetch(first.dataUrl + location)
    await first.end('SIGKILL')
    answer = (_received, response) => void response.end('done')
    const second = await home.start()
    expect(await outcomeAt(second, location)).toMatchObject({ status: 502, problem: { type: 'urn:attache:problem:outcome-unknown' } })
    expect(server.received).toHaveLength(1)
  })

  it('an orderly stop leaves what waits to the next start', { timeout: 180_000 }, async () => {
    answer = (_received, response) => void response.writeHead(503, { 'Retry-After': '1' }).end()
    const first = await home.start()
    const location = await later(first, 'PUT', '/x')
    while (server.received.length === 0) await fetch(first.dataUrl + location)
    expect(await first.end('SIGTERM')).toBe(0)
    answer = (_received, response) => void response.end('done')
    const second = await home.start()
    expect(await outcomeAt(second, location)).toMatchObject({ status: 200, body: 'done' })
  })
})
