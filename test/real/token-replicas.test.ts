import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { child, type Child } from '../support/child.ts'
import { origin, type Origin } from '../support/origin.ts'
import { requireReal } from '../support/real.ts'
import { realRedis } from '../support/redis.ts'
import { credential } from '../support/token-service.ts'

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

  test('one after the other, each killed, make none beyond the first', { timeout: 120_000 }, async () => {
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

  test('that find the token service dead leave it alone together', { timeout: 180_000 }, async () => {
    const server = await serving((_received, response) => void response.writeHead(500).end())
    const state = stateFile()
    for (let life = 0; life < 4; life++) {
      const one = replica(state, server.url, 5, 20)
      await one.line(/^problem token-unavailable/)
      one.kill('SIGKILL')
      await one.ended
    }
    expect(server.received.length).toBeLessThanOrEqual(2)
  })
})
