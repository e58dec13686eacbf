import { randomBytes } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { systemClock } from '../../src/exchange/clock.ts'
import type { Store } from '../../src/state/store.ts'
import { openStore } from '../../src/state/open-store.ts'
import { openCredentials } from '../../src/tokens/credentials.ts'
import type { Authorization, TokenSource } from '../../src/tokens/source.ts'
import { tokenFetch } from '../../src/transport/token-fetch.ts'
import { origin, type Origin } from '../support/origin.ts'
import { reports } from '../support/policy-call.ts'
import { sidecarHome } from '../support/process.ts'
import { requireReal } from '../support/real.ts'
import { realRedis, type RealRedis } from '../support/redis.ts'
import { attempt, credential, unauthorized } from '../support/token-service.ts'

const binary = requireReal('redis-server')
const never = new AbortController().signal

describe.skipIf(binary === undefined)('over a real Redis', () => {
  let redis: RealRedis
  const cleanUps: (() => unknown)[] = []

  beforeEach(async () => {
    redis = await realRedis(binary ?? '')
    await redis.start()
    cleanUps.push(() => redis.remove())
  })
  afterEach(async () => {
    for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp()
  })

  async function serving(answer: (...args: Parameters<NonNullable<Parameters<typeof origin>[0]>>) => unknown): Promise<Origin> {
    const server = await origin((...args) => void answer(...args))
    cleanUps.push(() => server.close())
    return server
  }

  describe('a replica that has waited for another one’s token', () => {
    /** `sawMark` resolves when it has seen in the store that another one is asking. */
    async function replica(tokenUrl: string): Promise<{ source: TokenSource; sawMark: Promise<void> }> {
      const tools = { clock: systemClock(), random: Math.random, report: reports().report }
      const opened = await openStore(redis.url, tools)
      const saw = Promise.withResolvers<void>()
      const watched =
        (look: Store['get']): Store['get'] =>
        async (key) => {
          const found = await look(key)
          if (found !== undefined && key.startsWith('asking:')) saw.resolve()
          return found
        }
      const store: Store = { ...opened, get: watched(opened.get), peek: watched(opened.peek) }
      const credentials = await openCredentials({ a: credential({ tokenUrl }) }, { ...tools, store, version: '1.2.3', tokenFetch: tokenFetch() })
      cleanUps.push(async () => {
        await credentials.close()
        await opened.close()
      })
      const source = credentials.get('a')
      if (source === undefined) throw new Error('not opened')
      return { source, sawMark: saw.promise }
    }
    const authorize = async (source: TokenSource): Promise<Authorization> => source.authorize(attempt(), never)

    test('does not wait for it again when Redis has stopped', { timeout: 30_000 }, async () => {
      const answer = Promise.withResolvers<void>()
      let issued = 0
      const server = await serving(async (_received, response) => {
        await answer.promise
        response.end(JSON.stringify({ access_token: `token-number-${++issued}`, token_type: 'Bearer', expires_in: 3600 }))
      })
      const [here, there] = [await replica(`${server.url}/token`), await replica(`${server.url}/token`)]
      const first = authorize(here.source)
      while (server.received.length === 0) await new Promise((resolve) => setImmediate(resolve))
      const second = authorize(there.source)
      await there.sawMark
      answer.resolve()
      expect((await second).fields[1]).toBe((await first).fields[1])
      redis.freeze()
      const stoppedAt = performance.now()
      expect(await there.source.rejected(attempt(), await second, unauthorized(), never)).toBe(true)
      const renewedMs = performance.now() - stoppedAt
      console.log(`Redis stopped: a token was renewed in ${renewedMs.toFixed(0)} ms`)
      expect(renewedMs).toBeLessThan(1000)
      expect(server.received).toHaveLength(2)
      redis.thaw()
    })
  })

  describe('a leased secret', () => {
    test('is asked for once by two sidecars and the one after them, and is nowhere in the clear', { timeout: 60_000 }, async () => {
      let issued = 0
      const server = await serving((_received, response) => {
        const end = Math.floor(Date.now() / 1000) + 3600
        response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify({ sas: `https://blob.example/?se=${end}&sig=CANARY-${++issued}` }))
      })
      const home = sidecarHome(
        `
state: "${redis.url}"
stateKey: "\${STATE_KEY}"
credentials:
  key: { grant: static, header: X-Api-Key, value: "\${KEY}" }
upstreams:
  up: { baseUrl: "${server.url}/api", credential: key, leases: [{ match: GET /connection-string, expires: sas }] }
`,
        { KEY: 'api-key-1', STATE_KEY: randomBytes(32).toString('hex') }
      )
      cleanUps.push(() => home.remove())
      const ask = async ({ dataUrl }: { dataUrl: string }): Promise<string> => (await fetch(`${dataUrl}/up/connection-string`)).text()
      const both = await Promise.all([home.start(), home.start()])
      const answers = await Promise.all([...both, ...both, ...both].map(ask))
      await Promise.all(both.map((sidecar) => sidecar.end('SIGKILL')))
      answers.push(await ask(await home.start()))
      expect(new Set(answers).size).toBe(1)
      expect(answers[0]).toContain('CANARY-1')
      expect(server.received).toHaveLength(1)
      console.log(`leased secret, 3 sidecars on one Redis, 2 killed: ${server.received.length} ask`)

      const keys = (await redis.command('KEYS *')).split('\r\n').filter((line) => line.startsWith('attache:'))
      expect(keys.some((key) => key.includes('lease/'))).toBe(true)
      for (const key of keys) expect(await redis.command(`HGETALL ${key}`)).not.toMatch(/CANARY|blob\.example/)
    })
  })
})
