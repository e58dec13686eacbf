import type { ServerResponse } from 'node:http'
import { afterEach, describe, expect, it } from 'vitest'
import { origin, type Origin, type Received } from '../support/origin.ts'
import { outcomeAt } from '../support/outcome.ts'
import { testSidecar, type TestSidecar } from '../support/sidecar.ts'

const cleanUps: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp()
})

async function house(
  answer: (received: Received, response: ServerResponse) => void,
  upstream = ''
): Promise<{ server: Origin; sidecar: TestSidecar; up: string }> {
  const server = await origin(answer)
  cleanUps.push(() => server.close())
  const sidecar = await testSidecar(`upstreams:\n  up: { baseUrl: "${server.url}/api", ${upstream} }\n`)
  cleanUps.push(() => sidecar.stop())
  return { server, sidecar, up: `${sidecar.dataUrl}/up` }
}

/** Whether each call after the first arrived no sooner than so many ms after the first (a busy machine may delay any of them). */
function notBefore({ received }: Origin, earliestMs: number[]): boolean[] {
  const [start = 0, ...later] = received.map(({ at }) => at)
  return later.map((at, i) => at - start >= (earliestMs[i] ?? Infinity) - 1)
}

describe('Prefer: respond-async', () => {
  it('answers 202 with a local Location, and later the provider’s whole answer', async () => {
    const { sidecar, server, up } = await house((_received, response) => {
      response.writeHead(201, { 'Content-Type': 'application/json', Location: '/api/orders/7', 'Set-Cookie': 'a=b' }).end('{"id":7}')
    })
    const accepted = await fetch(`${up}/orders`, { method: 'POST', headers: { Prefer: 'respond-async', 'Content-Type': 'application/json' }, body: '{}' })
    expect(accepted.status).toBe(202)
    expect(accepted.headers.get('preference-applied')).toBe('respond-async')
    expect(accepted.headers.get('location')).toMatch(/^\/_attache\/operations\/[\w-]{22}$/)
    const outcome = await outcomeAt(sidecar, accepted.headers.get('location'))
    expect(outcome).toMatchObject({ status: 201, body: '{"id":7}', headers: { location: '/up/orders/7', 'content-type': 'application/json' } })
    expect(JSON.stringify(outcome)).not.toContain('a=b')
    expect(server.received).toMatchObject([{ method: 'POST', url: '/api/orders', body: Buffer.from('{}') }])
    expect(server.received[0]?.headers).not.toHaveProperty('prefer')
  })

  it('keeps the local Location local, even where the provider lives at the root of its host', async () => {
    const server = await origin()
    cleanUps.push(() => server.close())
    const sidecar = await testSidecar(`upstreams:\n  up: { baseUrl: "${server.url}/" }\n`)
    cleanUps.push(() => sidecar.stop())
    const accepted = await fetch(`${sidecar.dataUrl}/up/x`, { headers: { Prefer: 'respond-async' } })
    expect(accepted.headers.get('location')).toMatch(/^\/_attache\//)
    expect(await outcomeAt(sidecar, accepted.headers.get('location'))).toMatchObject({ status: 200, body: 'ok' })
  })

  it('climbs the ladder without its caller: three attempts, not closer than agreed', async () => {
    const { sidecar, server, up } = await house(
      (_received, response) => void response.writeHead(server.received.length < 3 ? 503 : 200).end('at last'),
      'retry: { backoff: [100ms, 200ms], jitter: 0 }'
    )
    const accepted = await fetch(`${up}/x`, { method: 'PUT', headers: { Prefer: 'respond-async' }, body: 'a' })
    expect(await outcomeAt(sidecar, accepted.headers.get('location'))).toMatchObject({ status: 200, body: 'at last' })
    const [first = 0, second = 0, third = 0] = server.received.map(({ at }) => at)
    expect(second - first).toBeGreaterThanOrEqual(99)
    expect(third - second).toBeGreaterThanOrEqual(199)
    expect(server.received).toHaveLength(3)
  })

  it('outlives timeout.total', async () => {
    const { sidecar, server, up } = await house(
      (_received, response) => void response.writeHead(server.received.length === 1 ? 503 : 200).end('late'),
      'timeout: { total: 100ms }, retry: { backoff: [300ms], jitter: 0 }'
    )
    const accepted = await fetch(`${up}/x`, { headers: { Prefer: 'respond-async' } })
    expect(await outcomeAt(sidecar, accepted.headers.get('location'))).toMatchObject({ status: 200, body: 'late' })
  })

  it('cancelled with DELETE, is gone', async () => {
    const { sidecar, server, up } = await house(() => undefined)
    const accepted = await fetch(`${up}/x`, { method: 'PUT', headers: { Prefer: 'respond-async' }, body: 'a' })
    const status = sidecar.dataUrl + accepted.headers.get('location')
    while (server.received.length === 0) await fetch(status)
    expect(await (await fetch(status)).json()).toMatchObject({ state: 'running', attempt: 1 })
    expect((await fetch(status, { method: 'DELETE' })).status).toBe(204)
    expect((await fetch(status)).status).toBe(404)
    expect((await fetch(status, { method: 'PUT' })).status).toBe(405)
  })
})

describe('Prefer: wait', () => {
  it('that runs out for a GET is answered 202 in time, and the answer follows', async () => {
    let release: (() => void) | undefined
    const { sidecar, up } = await house((_received, response) => (release = () => void response.end('late')))
    const startedAt = sidecar.time.now()
    const accepted = await fetch(`${up}/x`, { headers: { Prefer: 'wait=1' } })
    expect(sidecar.time.now() - startedAt).toBeLessThan(3000)
    expect(accepted.status).toBe(202)
    expect(accepted.headers.get('location')).toMatch(/^\/_attache\//)
    release?.()
    expect(await outcomeAt(sidecar, accepted.headers.get('location'))).toMatchObject({ status: 200, body: 'late' })
  })

  it('that runs out for a POST is no 202: nobody knows what became of it', async () => {
    const { up } = await house(() => undefined)
    const answer = await fetch(`${up}/x`, { method: 'POST', headers: { Prefer: 'wait=1' }, body: 'a' })
    expect(answer.status).toBe(502)
    expect(await answer.json()).toMatchObject({ type: 'urn:attache:problem:outcome-unknown' })
  })

  it('polls a provider’s 202 and hands over the result', async () => {
    const { server, up } = await house((received, response) => {
      const looks = server.received.filter(({ url }) => url === '/api/results/1').length
      if (received.method === 'POST') response.writeHead(202, { Location: `${server.url}/api/results/1` }).end()
      else response.writeHead(looks === 1 ? 404 : looks === 2 ? 202 : 200).end(`look ${looks}`)
    }, 'async: { poll: { first: 50ms, factor: 2, max: 1s } }, cache: { negative: { 404: 60s } }')
    const answer = await fetch(`${up}/work`, { method: 'POST', headers: { Prefer: 'wait=10' }, body: 'a' })
    expect([answer.status, await answer.text()]).toEqual([200, 'look 3'])
    expect(answer.headers.get('attache-attempts')).toBe('4')
    expect(notBefore(server, [50, 150, 350])).toEqual([true, true, true])
  })

  it('hands over the provider’s 202 with a Location that leads through the sidecar when time runs out', async () => {
    const { server, up } = await house(
      (_received, response) => void response.writeHead(202, { Location: '/api/results/1' }).end('not yet'),
      'async: { poll: { first: 400ms } }'
    )
    const answer = await fetch(`${up}/work`, { method: 'POST', headers: { Prefer: 'wait=1' }, body: 'a' })
    expect([answer.status, answer.headers.get('location'), await answer.text()]).toEqual([202, '/up/results/1', 'not yet'])
    expect(server.received.filter(({ method }) => method === 'GET')).toHaveLength(1)
  })
})

it('an app that polls a Location without pause reaches the provider at the agreed pace', async () => {
  const { server, up } = await house(
    (received, response) => void response.writeHead(received.method === 'POST' || server.received.length < 5 ? 202 : 200, { Location: '/api/results/1' }).end(),
    'async: { poll: { first: 50ms, factor: 1.5, max: 1s } }'
  )
  const { headers } = await fetch(`${up}/work`, { method: 'POST', body: 'a' })
  expect(headers.get('location')).toBe('/up/results/1')
  let answer: Response
  do answer = await fetch(`${up}/results/1`)
  while (answer.status === 202)
  expect(answer.status).toBe(200)
  expect(notBefore(server, [50, 125, 237, 405])).toEqual([true, true, true, true])
})

describe('Idempotency-Key', () => {
  it('gives the same answer again without asking the provider, and 422 to another payload', async () => {
    const { server, up } = await house((_received, response) => void response.writeHead(201).end(`order ${server.received.length}`))
    const order = (body: string) => fetch(`${up}/orders`, { method: 'POST', headers: { 'Idempotency-Key': '"k-1"' }, body })
    const all = await Promise.all([order('a'), order('a'), order('a')])
    expect(await Promise.all(all.map((answer) => answer.text()))).toEqual(['order 1', 'order 1', 'order 1'])
    expect(all.map((answer) => String(answer.headers.get('attache-attempts'))).toSorted()).toEqual(['0', '0', '1'])
    const other = await order('b')
    expect([other.status, other.headers.get('content-type')]).toEqual([422, 'application/problem+json'])
    expect(server.received.map(({ headers }) => headers['idempotency-key'])).toEqual(['"k-1"'])
  })
})
