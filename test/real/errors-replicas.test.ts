import { afterEach, describe, expect, test } from 'vitest'
import { call } from '../support/call.ts'
import { faultServer, type FaultServer } from '../support/fault-server.ts'
import { sidecarHome } from '../support/process.ts'
import { requireReal } from '../support/real.ts'
import { realRedis } from '../support/redis.ts'
import { testSidecar, type TestSidecar } from '../support/sidecar.ts'

/** Volume, gate and breaker where one process is not all there is. */

const cleanUps: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp()
})

const FINE = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
const SORRY = 'HTTP/1.1 500 Internal Server Error\r\nContent-Length: 5\r\n\r\nsorry'

async function provider(answer: () => string): Promise<FaultServer> {
  const server = await faultServer((socket) => socket.write(answer()))
  cleanUps.push(() => server.close())
  return server
}

test('a sidecar that is killed again and again stays within the agreed volume', { timeout: 180_000 }, async () => {
  const server = await provider(() => FINE)
  const home = sidecarHome(`
state: sqlite:./state.db
upstreams:
  up: { baseUrl: "${server.url}", volume: { limits: ["40/1h"], key: "path[0]", onExceed: reject } }
`)
  cleanUps.push(() => home.remove())
  const outcomes: number[] = []
  for (let life = 0; life < 3; life++) {
    const sidecar = await home.start()
    const burst = await Promise.all(Array.from({ length: 20 }, (_, i) => call(`${sidecar.dataUrl}/up/org/${life}-${i}`)))
    outcomes.push(...burst.map(({ status }) => status))
    await sidecar.end('SIGKILL')
  }
  expect(server.arrivals.length).toBeLessThanOrEqual(40)
  expect(server.arrivals.length).toBeGreaterThanOrEqual(30)
  expect(outcomes.filter((status) => status === 200)).toHaveLength(server.arrivals.length)
  expect(outcomes.filter((status) => status !== 200 && status !== 429)).toEqual([])
})

const redisServer = requireReal('redis-server')

describe.skipIf(redisServer === undefined)('replicas that share a Redis', () => {
  async function replicas(count: number, server: FaultServer, rest: string): Promise<TestSidecar[]> {
    const redis = await realRedis(redisServer ?? '')
    cleanUps.push(() => redis.remove())
    await redis.start()
    return Promise.all(
      Array.from({ length: count }, async () => {
        const sidecar = await testSidecar(`state: "${redis.url}"\nupstreams: { up: { baseUrl: "${server.url}", retry: { attempts: 1 }, ${rest} } }`)
        cleanUps.push(() => sidecar.stop())
        return sidecar
      })
    )
  }

  test('keep one volume between them', async () => {
    const server = await provider(() => FINE)
    const sidecars = await replicas(3, server, 'volume: { limits: ["60/1h"], onExceed: reject }')
    const outcomes = await Promise.all(Array.from({ length: 150 }, (_, i) => call(`${sidecars[i % 3]?.dataUrl}/up/${i}`)))
    expect(server.arrivals.length).toBeLessThanOrEqual(60)
    expect(server.arrivals.length).toBeGreaterThanOrEqual(50)
    expect(outcomes.filter(({ status, code }) => status !== 200 && code !== 'volume-exhausted')).toEqual([])
  })

  test('wait together when one of them was told to', async () => {
    let isFirst = true
    const server = await provider(() => {
      const answer = isFirst ? 'HTTP/1.1 429 Too Many Requests\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n' : FINE
      isFirst = false
      return answer
    })
    const [one, two] = await replicas(2, server, 'timeout: { total: 5s }')
    expect(await call(`${one?.dataUrl}/up/a`)).toMatchObject({ status: 429 })
    expect(await call(`${two?.dataUrl}/up/b`)).toMatchObject({ status: 503, code: 'upstream-wait' })
    expect(server.arrivals).toHaveLength(1)
  })

  test('leave a failing provider alone together', async () => {
    const server = await provider(() => SORRY)
    const [one, two] = await replicas(2, server, 'breaker: { failures: 3, cooldown: 60s }')
    for (let i = 0; i < 3; i++) await call(`${one?.dataUrl}/up/${i}`)
    expect(await call(`${two?.dataUrl}/up/x`)).toMatchObject({ code: 'breaker-open' })
    expect(server.arrivals).toHaveLength(3)
  })

  test('go on without it, each by itself, when Redis is gone', async () => {
    const server = await provider(() => FINE)
    const redis = await realRedis(redisServer ?? '')
    cleanUps.push(() => redis.remove())
    await redis.start()
    const sidecar = await testSidecar(`state: "${redis.url}"\nupstreams: { up: { baseUrl: "${server.url}", volume: { limits: ["50/1h"], onExceed: reject } } }`)
    cleanUps.push(() => sidecar.stop())
    for (let i = 0; i < 20; i++) expect(await call(`${sidecar.dataUrl}/up/${i}`)).toMatchObject({ status: 200 })
    await redis.kill()
    const outcomes = await Promise.all(Array.from({ length: 60 }, (_, i) => call(`${sidecar.dataUrl}/up/later-${i}`)))
    expect(outcomes.filter(({ status, code }) => status !== 200 && code !== 'volume-exhausted')).toEqual([])
    expect(server.arrivals.length).toBeLessThanOrEqual(50)
    expect(server.arrivals.length).toBeGreaterThanOrEqual(40)
  })
})
