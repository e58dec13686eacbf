import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { systemClock } from '../../src/exchange/clock.ts'
import { openStore } from '../../src/state/open-store.ts'
import { openCredentials } from '../../src/tokens/credentials.ts'
import { tokenFetch } from '../../src/transport/token-fetch.ts'
import { child, type Child } from '../support/child.ts'
import { testClock } from '../support/clock.ts'
import { origin, type Origin } from '../support/origin.ts'
import { reports } from '../support/policy-call.ts'
import { requireReal } from '../support/real.ts'
import { realRedis } from '../support/redis.ts'
import { attempt, credential } from '../support/token-service.ts'

const CHILD = join(import.meta.dirname, '../support/token-child.ts')
const TOKEN = JSON.stringify({ access_token: 'token-of-all', token_type: 'Bearer', expires_in: 3600 })

const redisServer = requireReal('redis-server')

const cleanUps: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp()
})

async function serving(answer?: (...args: Parameters<NonNullable<Parameters<typeof origin>[0]>>) => unknown): Promise<Origin> {
  const server = await origin(answer && ((...args) => void answer(...args)))
  cleanUps.push(() => server.close())
  return server
}

describe('several processes on one state', () => {
  function replica(state: string, url: string, wishes: number, pauseMs = 0): Child {
    const { clientSecret: _secret, ...options } = credential({ tokenUrl: `${url}/token` })
    const started = child(CHILD, [state, JSON.stringify(options), String(wishes), String(pauseMs)])
    cleanUps.push(() => started.kill('SIGKILL'))
    return started
  }
  function stateFile(): string {
    const folder = mkdtempSync(join(tmpdir(), 'attache-replicas-'))
    cleanUps.push(() => rmSync(folder, { recursive: true, force: true }))
    return `sqlite:${join(folder, 'attache.db')}`
  }

  test('make one token request together, also while it is under way', { timeout: 180_000 }, async () => {
    const answer = Promise.withResolvers<void>()
    const server = await serving(async (_received, response) => {
      await answer.promise
      response.end(TOKEN)
    })
    const state = stateFile()
    const replicas = Array.from({ length: 3 }, () => replica(state, server.url, 1))
    await Promise.all(replicas.map((one) => one.line(/^open/)))
    answer.resolve()
    const tokens = await Promise.all(replicas.map((one) => one.line(/^token|^problem/)))
    expect(tokens[0]).toMatch(/^token [0-9a-f]{8}$/)
    expect(tokens).toEqual(tokens.map(() => tokens[0]))
    expect(server.received).toHaveLength(1)
    console.log(`3 replicas: ${server.received.length} token request`)
  })

  test.skipIf(redisServer === undefined)('make one token request together over a Redis, and go on without it', { timeout: 180_000 }, async () => {
    const redis = await realRedis(redisServer ?? '')
    cleanUps.push(() => redis.remove())
    await redis.start()
    const server = await serving((_received, response) => void response.end(TOKEN))
    const replicas = Array.from({ length: 3 }, () => replica(redis.url, server.url, 1000, 50))
    await Promise.all(replicas.map((one) => one.line(/^token/)))
    expect(server.received).toHaveLength(1)
    await redis.kill()
    const wishes = replicas.map((one) => one.lines.length)
    while (replicas.some((one, index) => one.lines.length < (wishes[index] ?? 0) + 5)) await new Promise((resolve) => setImmediate(resolve))
    expect(replicas.flatMap((one) => one.lines).filter((line) => !/^token|^open/.test(line))).toEqual([])
    expect(server.received).toHaveLength(1)
  })

  test('one after the other, each killed, make none beyond the first', { timeout: 180_000 }, async () => {
    const server = await serving((_received, response) => void response.end(TOKEN))
    const state = stateFile()
    for (let life = 0; life < 20; life++) {
      const one = replica(state, server.url, 1000, 1000)
      expect(await one.line(/^token|^problem/)).toMatch(/^token/)
      one.kill('SIGKILL')
      await one.ended
    }
    console.log(`kill -9 x 20 in one lifetime: ${server.received.length - 1} further token requests`)
    expect(server.received).toHaveLength(1)
  })

  /** Starts replicas one after the other and kills each when it has printed so many lines; all their lines, and the seconds it took. */
  async function lives(count: number, state: string, url: string, wishes: number): Promise<{ lines: string[]; seconds: number }> {
    const startedAt = performance.now()
    const lines: string[] = []
    for (let life = 0; life < count; life++) {
      const one = replica(state, url, wishes + 1000, 20)
      while (one.lines.length <= wishes) await new Promise((resolve) => setImmediate(resolve))
      one.kill('SIGKILL')
      await one.ended
      lines.push(...one.lines.filter((line) => line !== 'open'))
    }
    return { lines, seconds: (performance.now() - startedAt) / 1000 }
  }

  test('that find the token service dead leave it alone together', { timeout: 180_000 }, async () => {
    const server = await serving((_received, response) => void response.writeHead(500).end())
    const { lines, seconds } = await lives(8, stateFile(), server.url, 3)
    console.log(`token service dead, 8 lives in ${seconds.toFixed(0)} s: ${server.received.length} token requests`)
    expect(lines.filter((line) => !line.startsWith('problem token-unavailable'))).toEqual([])
    // On the ladder: the second no sooner than 10 s after the first, which is six a minute at most.
    expect(server.received.length).toBeLessThanOrEqual(1 + seconds / 10)
    expect(server.received.length).toBeGreaterThan(0)
  })

  test('that find it dead while their token is still valid go on with that, and leave it alone as well', { timeout: 180_000 }, async () => {
    let isDead = false
    const server = await serving((_received, response) => void (isDead ? response.writeHead(500).end() : response.end(TOKEN)))
    const state = stateFile()
    // A token of an hour, got 58 minutes ago: from the agreed share of its life on every request may bring about its renewal.
    const clock = testClock(Date.now() - 58 * 60_000)
    const tools = { clock, random: () => 0, report: reports().report }
    const store = await openStore(state, { ...tools, clock: systemClock() })
    const options = credential({ tokenUrl: `${server.url}/token` })
    const credentials = await openCredentials({ a: options }, { ...tools, store, version: '1.2.3', tokenFetch: tokenFetch() })
    await credentials.get('a')?.authorize(attempt(), new AbortController().signal)
    await credentials.close()
    await store.close()
    expect(server.received).toHaveLength(1)

    isDead = true
    const { lines, seconds } = await lives(8, state, server.url, 3)
    const asked = server.received.length - 1
    console.log(`token service dead, 8 lives in ${seconds.toFixed(0)} s: the valid token served ${lines.length} calls, ${asked} token requests`)
    expect(new Set(lines).size).toBe(1)
    expect(lines[0]).toMatch(/^token [0-9a-f]{8}$/)
    expect(asked).toBeGreaterThan(0)
    expect(asked).toBeLessThanOrEqual(1 + seconds / 10)
  })
})
