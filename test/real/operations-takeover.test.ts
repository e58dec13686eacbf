import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { origin, type Origin, type Received } from '../support/origin.ts'
import { sidecarProcess, type SidecarProcess } from '../support/process.ts'
import { requireReal } from '../support/real.ts'
import { realRedis, type RealRedis } from '../support/redis.ts'

const binary = requireReal('redis-server')
const OPERATIONS = 10

describe.skipIf(binary === undefined)('replicas that share a real Redis', () => {
  let folder: string
  let redis: RealRedis
  let server: Origin
  let answer: (received: Received, response: ServerResponse) => void
  const replicas: SidecarProcess[] = []

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'attache-takeover-'))
    redis = await realRedis(binary ?? '')
    await redis.start()
    server = await origin((received, response) => answer(received, response))
    writeFileSync(
      join(folder, 'attache.yaml'),
      `
version: 1
listen: 127.0.0.1:0
admin: { listen: 127.0.0.1:0 }
state: ${redis.url}
stateKey: "\${STATE_KEY}"
upstreams:
  up: { baseUrl: "${server.url}/api", retry: { backoff: [50ms], jitter: 0 }, breaker: { failures: 1000 } }
`
    )
  })
  afterEach(async () => {
    await Promise.all(replicas.splice(0).map((replica) => replica.end('SIGKILL')))
    await server.close()
    await redis.remove()
    rmSync(folder, { recursive: true, force: true })
  })

  async function replica(): Promise<SidecarProcess> {
    const started = await sidecarProcess(join(folder, 'attache.yaml'), { environment: { STATE_KEY: 'CANARY-state-key-of-32-characters' } })
    replicas.push(started)
    return started
  }

  it('a dead one’s work is carried out by another: no PUT is lost, no POST arrives twice', { timeout: 120_000 }, async () => {
    // nobody answers the first replica
    answer = () => undefined
    const [one, two] = [await replica(), await replica()]
    const accepted: { method: string; path: string; location: string }[] = []
    for (let i = 0; i < OPERATIONS; i++) {
      const method = i % 2 === 0 ? 'PUT' : 'POST'
      const taken = await fetch(`${one.dataUrl}/up/${i}`, { method, headers: { Prefer: 'respond-async' }, body: 'CANARY-body' })
      expect(taken.status).toBe(202)
      accepted.push({ method, path: `/api/${i}`, location: taken.headers.get('location') ?? '' })
    }
    // every one is under way, and the other replica knows of it
    while (server.received.length < OPERATIONS) expect((await fetch(two.dataUrl + accepted[0]?.location)).status).toBe(202)
    answer = (_received, response) => void response.end('done')
    await one.end('SIGKILL')

    for (const { method, path, location } of accepted) {
      const outcome = await outcomeAt(two, location)
      const arrived = server.received.filter(({ url }) => url === path).length
      const carriedOut = { status: 200, body: 'done' }
      const unknown = { status: 502, problem: { type: 'urn:attache:problem:outcome-unknown' } }
      expect({ ...outcome, arrived }).toMatchObject(method === 'PUT' ? { ...carriedOut, arrived: 2 } : { ...unknown, arrived: 1 })
    }
    expect(await redis.command('KEYS *')).not.toContain('CANARY')
  })
})

async function outcomeAt(sidecar: SidecarProcess, location: string): Promise<Record<string, unknown>> {
  for (let asked = 0; asked < 50_000; asked++) {
    const status = await fetch(sidecar.dataUrl + location)
    const document = (await status.json()) as Record<string, unknown>
    if (status.status === 200) return document
    expect(status.status).toBe(202)
  }
  throw new Error('nobody took the operation over')
}
