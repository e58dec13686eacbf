import type { ServerResponse } from 'node:http'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { origin, type Origin, type Received } from '../support/origin.ts'
import { outcomeAt } from '../support/outcome.ts'
import { sidecarHome, type SidecarHome } from '../support/process.ts'
import { requireReal } from '../support/real.ts'
import { realRedis, type RealRedis } from '../support/redis.ts'

const binary = requireReal('redis-server')
const OPERATIONS = 10

describe.skipIf(binary === undefined)('replicas that share a real Redis', () => {
  let redis: RealRedis
  let server: Origin
  let home: SidecarHome
  let answer: (received: Received, response: ServerResponse) => void

  beforeEach(async () => {
    redis = await realRedis(binary ?? '')
    await redis.start()
    server = await origin((received, response) => answer(received, response))
    home = sidecarHome(
      `
state: ${redis.url}
stateKey: "\${STATE_KEY}"
upstreams:
  up: { baseUrl: "${server.url}/api", retry: { backoff: [50ms], jitter: 0 }, breaker: { failures: 1000 } }
`,
      { STATE_KEY: 'CANARY-state-key-of-32-characters' }
    )
  })
  afterEach(async () => {
    await home.remove()
    await server.close()
    await redis.remove()
  })

  it('a dead one’s work is carried out by another: no PUT is lost, no POST arrives twice', { timeout: 120_000 }, async () => {
    // nobody answers the first replica
    answer = () => undefined
    const [one, two] = [await home.start(), await home.start()]
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
