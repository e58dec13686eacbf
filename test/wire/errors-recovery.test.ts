import { afterEach, describe, expect, test } from 'vitest'
import { call } from '../support/call.ts'
import { faultServer, type Answering, type FaultServer } from '../support/fault-server.ts'
import { FAULTS } from '../support/faults.ts'
import { testSidecar, type TestSidecar } from '../support/sidecar.ts'

/** What happens while a provider fails and when it comes back, through a real sidecar. Times in the configuration run faster where `speed` says so. */

const cleanUps: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp()
})

const FINE = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'

function answer(status: string, fields = ''): string {
  return `HTTP/1.1 ${status}\r\n${fields}Content-Length: 5\r\n\r\nsorry`
}

async function provider(answering: Answering = (socket) => socket.write(FINE)): Promise<FaultServer> {
  const server = await faultServer(answering)
  cleanUps.push(() => server.close())
  return server
}

/** A provider that the fault of that name strikes once. */
async function struckBy(name: string): Promise<FaultServer> {
  const fault = FAULTS[name]
  if (fault === undefined) throw new Error(`there is no fault called ${name}`)
  const server = await fault({ isPrimed: false, times: 1 })
  cleanUps.push(() => server.close())
  return server
}

async function started(
  upstreams: Record<string, [FaultServer, string]>,
  options: Parameters<typeof testSidecar>[1] & { state?: string } = {}
): Promise<TestSidecar> {
  const entries = Object.entries(upstreams).map(([name, [server, rest]]) => `  ${name}: { baseUrl: "${server.url}", ${rest} }`)
  const state = options.state === undefined ? '' : `state: "${options.state}"\n`
  const sidecar = await testSidecar(`${state}upstreams:\n${entries.join('\n')}`, options)
  let isStopped = false
  const stop = async (): Promise<number> => {
    if (isStopped) return 0
    isStopped = true
    return sidecar.stop()
  }
  cleanUps.push(stop)
  return { ...sidecar, stop }
}

describe('a fault that strikes once', () => {
  const QUICK = 'retry: { attempts: 3, backoff: [30ms], jitter: 0 }, timeout: { response: 600ms, idle: 600ms }'

  test('costs a repeatable call one more attempt, with the same body', async () => {
    const names = [
      'reset before the header',
      'closed before the header',
      'reset after the header',
      'small body cut short',
      'not HTTP',
      'two lengths',
      'no header',
      '500',
      '503 without a word',
      '429 without a word'
    ]
    const servers = await Promise.all(names.map(struckBy))
    const upstreams = Object.fromEntries(servers.map((server, i): [string, [FaultServer, string]] => [`u${i}`, [server, QUICK]]))
    const { dataUrl } = await started(upstreams)
    const outcomes = await Promise.all(names.map((_name, i) => call(`${dataUrl}/u${i}/x`, { method: 'PUT', body: 'same' })))
    expect(names.map((name, i) => `${name}: ${outcomes[i]?.status}, ${outcomes[i]?.attempts}`)).toEqual(names.map((name) => `${name}: 200, 2`))
    expect(servers.map((server) => server.arrivals.map(({ body }) => String(body)))).toEqual(names.map(() => ['same', 'same']))
  })

  test('one transient error is an attempt that failed, not an operation', async () => {
    const server = await provider((socket, _arrival, count) => socket.write(count === 1 ? answer('500 Internal Server Error') : FINE))
    const sidecar = await started({ up: [server, QUICK] })
    expect(await call(`${sidecar.dataUrl}/up/x`)).toMatchObject({ status: 200, attempts: 2 })
    expect(await sidecar.metric('attache_operation_failures_total')).toBe(0)
    expect(await sidecar.metric('attache_retries_total', { upstream: 'up', reason: '500' })).toBe(1)
    expect(await sidecar.metric('attache_attempts_total', { upstream: 'up', result: 'failure' })).toBe(1)
  })
})

describe('when the provider says wait', () => {
  const PATIENT = 'retry: { attempts: 1 }, timeout: { total: 10s }'

  test('nobody comes before, one goes first, the rest follow: seconds, a date, a date that is nearly one', async () => {
    const soon = (): string => new Date(Math.ceil(Date.now() / 1000) * 1000 + 1000).toUTCString()
    const fields = [() => '1', soon, () => soon().replace(/^.../, 'Xyz').replace('GMT', 'UTC')]
    const servers = await Promise.all(
      fields.map((field) =>
        provider((socket, _arrival, count) => {
          if (count === 1) socket.write(answer('503 Service Unavailable', `Retry-After: ${field()}\r\n`))
          // the first one after the pause takes its time: nobody may overtake it
          else setTimeout(() => socket.write(FINE), count === 2 ? 150 : 0)
        })
      )
    )
    const { dataUrl } = await started(Object.fromEntries(servers.map((server, i) => [`u${i}`, [server, PATIENT]])))
    await Promise.all(
      servers.map(async (server, i) => {
        expect(await call(`${dataUrl}/u${i}/first`)).toMatchObject({ status: 503, code: undefined })
        const rest = await Promise.all(Array.from({ length: 20 }, () => call(`${dataUrl}/u${i}/x`, { method: 'POST' })))
        expect(rest.every(({ status }) => status === 200)).toBe(true)
        const times = server.arrivals.map(({ at }) => at - (server.arrivals[0]?.at ?? 0))
        expect(times[1]).toBeGreaterThanOrEqual(1000)
        expect((times[2] ?? 0) - (times[1] ?? 0)).toBeGreaterThanOrEqual(150)
      })
    )
  })

  test('a thousand who waited a minute are no herd when it is over', { timeout: 60_000 }, async () => {
    const CALLERS = 1000
    const SPEED = 20
    let mostOpen = 0
    const server = await provider((socket, _arrival, count) => {
      mostOpen = Math.max(mostOpen, server.open())
      if (count === 1) socket.write(answer('503 Service Unavailable', 'Retry-After: 60\r\n'))
      // a herd would be here before the first of it is answered
      else setTimeout(() => socket.write(FINE), 10)
    })
    const { dataUrl } = await started({ up: [server, 'retry: { attempts: 1 }, timeout: { total: 1h }'] }, { speed: SPEED })
    expect(await call(`${dataUrl}/up/first`, { headers: { 'Attache-Timeout': '30s' } })).toMatchObject({ status: 503, code: undefined })
    const outcomes = await Promise.all(Array.from({ length: CALLERS }, (_, i) => call(`${dataUrl}/up/${i}`)))
    expect(outcomes.filter(({ status }) => status !== 200)).toEqual([])
    expect(server.arrivals).toHaveLength(1 + CALLERS)
    const times = server.arrivals.map(({ at }) => at - (server.arrivals[0]?.at ?? 0))
    expect(times[1]).toBeGreaterThanOrEqual(60_000 / SPEED)
    // the ramp of the gate: 100 ms on average before the first who follows, 5 before the last
    expect((times[50] ?? 0) - (times[1] ?? 0)).toBeGreaterThanOrEqual(1000 / 2 / SPEED)
    expect(mostOpen).toBeLessThan(CALLERS / 10)
  })

  test('who cannot wait is told how long, at once, and the provider is left alone', async () => {
    const server = await provider((socket) => socket.write(answer('429 Too Many Requests', 'Retry-After: 30\r\n')))
    const { dataUrl } = await started({ up: [server, PATIENT] })
    expect(await call(`${dataUrl}/up/x`)).toMatchObject({ status: 429, code: undefined, retryAfter: 30 })
    for (let i = 0; i < 10; i++) {
      const refused = await call(`${dataUrl}/up/x`)
      expect(refused).toMatchObject({ status: 503, code: 'upstream-wait', attempts: 0 })
      expect(refused.retryAfter).toBeGreaterThanOrEqual(29)
    }
    expect(server.arrivals).toHaveLength(1)
  })

  test('those who wait for a connection have not gone yet, and wait for this too', async () => {
    const server = await provider((socket) => setTimeout(() => socket.write(answer('429 Too Many Requests', 'Retry-After: 30\r\n')), 50))
    const { dataUrl } = await started({ up: [server, `${PATIENT}, volume: { concurrency: 1 }`] })
    const outcomes = await Promise.all(Array.from({ length: 10 }, (_, i) => call(`${dataUrl}/up/${i}`)))
    expect(outcomes.map(({ status, code }) => code ?? String(status)).toSorted()).toEqual(['429', ...Array.from({ length: 9 }, () => 'upstream-wait')])
    expect(server.arrivals).toHaveLength(1)
  })

  test('a caller’s own limit counts: Attache-Timeout and Prefer: wait', async () => {
    const server = await provider((socket) => socket.write(answer('429 Too Many Requests', 'Retry-After: 3\r\n')))
    const { dataUrl } = await started({ up: [server, PATIENT] })
    await call(`${dataUrl}/up/x`)
    for (const headers of [{ 'Attache-Timeout': '1s' }, { Prefer: 'wait=1' }]) {
      expect(await call(`${dataUrl}/up/x`, { method: 'POST', headers })).toMatchObject({ status: 503, code: 'upstream-wait' })
    }
    expect(server.arrivals).toHaveLength(1)
  })

  test('it holds for the organisation that was told, not for another', async () => {
    const server = await provider((socket, { target }) =>
      socket.write(target.startsWith('/v1/busy') ? answer('429 Too Many Requests', 'Retry-After: 30\r\n') : FINE)
    )
    const { dataUrl } = await started({ up: [server, `${PATIENT}, volume: { key: "path[1]" }`] })
    expect(await call(`${dataUrl}/up/v1/busy/x`)).toMatchObject({ status: 429 })
    expect(await call(`${dataUrl}/up/v1/busy/y`)).toMatchObject({ code: 'upstream-wait' })
    expect(await call(`${dataUrl}/up/v1/idle/y`)).toMatchObject({ status: 200 })
  })

  test('it holds over a restart', async () => {
    const server = await provider((socket) => socket.write(answer('503 Service Unavailable', 'Retry-After: 60\r\n')))
    const first = await started({ up: [server, PATIENT] }, { state: 'sqlite:./state.db' })
    await call(`${first.dataUrl}/up/x`)
    const second = await started({ up: [server, PATIENT] }, { state: 'sqlite:./state.db', folder: first.folder })
    expect(await call(`${second.dataUrl}/up/x`)).toMatchObject({ code: 'upstream-wait' })
    expect(server.arrivals).toHaveLength(1)
  })
})

describe('when the provider keeps failing', () => {
  const BREAKING = 'retry: { attempts: 1 }, breaker: { failures: 5, cooldown: 60s, maxCooldown: 300s }'
  // 60 s of cooldown are 300 ms
  const SPEED = 200

  test('after five failures it hears nothing for the cooldown, then one probe, then everybody', async () => {
    let isDown = true
    const server = await provider((socket) => socket.write(isDown ? answer('500 Internal Server Error') : FINE))
    const { dataUrl, time } = await started({ up: [server, BREAKING] }, { speed: SPEED })
    for (let i = 0; i < 5; i++) expect(await call(`${dataUrl}/up/x`)).toMatchObject({ status: 500 })
    const openedAt = time.now()
    isDown = false
    let served = 0
    while (served === 0 && time.now() - openedAt < 5000) {
      const outcomes = await Promise.all(Array.from({ length: 10 }, (_, i) => call(`${dataUrl}/up/${i}`)))
      served = outcomes.filter(({ status }) => status === 200).length
      expect(outcomes.every(({ status, code, retryAfter }) => status === 200 || (code === 'breaker-open' && retryAfter > 0))).toBe(true)
    }
    const probe = server.arrivals[5]
    expect((probe?.at ?? 0) - (server.arrivals[4]?.at ?? 0)).toBeGreaterThanOrEqual(60_000 / SPEED)
    expect(await call(`${dataUrl}/up/x`)).toMatchObject({ status: 200 })
  })

  test('a flood of callers during an outage stays within the budget and then meets the breaker', async () => {
    const server = await provider((socket) => socket.write(answer('503 Service Unavailable')))
    const { dataUrl } = await started({ up: [server, 'retry: { attempts: 3, backoff: [20ms], jitter: 0 }, breaker: { failures: 1000000 }'] })
    const gets = await Promise.all(Array.from({ length: 200 }, (_, i) => call(`${dataUrl}/up/${i}`)))
    expect(gets.every(({ status }) => status === 503)).toBe(true)
    expect(server.arrivals.length).toBeLessThanOrEqual(200 * 1.2 + 10 * 2)
    const posts = await Promise.all(Array.from({ length: 50 }, () => call(`${dataUrl}/up/once`, { method: 'POST' })))
    expect(posts.every(({ attempts }) => attempts === 1)).toBe(true)
    expect(server.arrivals.filter(({ target }) => target === '/once')).toHaveLength(50)
  })

  test('whoever waits for a retry is answered as soon as the breaker opens', async () => {
    const server = await provider((socket) => socket.write(answer('500 Internal Server Error')))
    const { dataUrl } = await started({ up: [server, 'retry: { attempts: 3, backoff: [20s] }, breaker: { failures: 3, cooldown: 60s }'] })
    const waiting = [call(`${dataUrl}/up/one`), call(`${dataUrl}/up/two`)]
    await until(() => server.arrivals.length === 2)
    expect(await call(`${dataUrl}/up/x`)).toMatchObject({ status: 500, attempts: 1 })
    for (const outcome of await Promise.all(waiting)) {
      expect(outcome).toMatchObject({ status: 503, code: 'breaker-open' })
      expect(outcome.ms).toBeLessThan(5000)
    }
    expect(server.arrivals).toHaveLength(3)
  })

  test('it is left alone over a restart too', async () => {
    const server = await provider((socket) => socket.write(answer('500 Internal Server Error')))
    const first = await started({ up: [server, BREAKING] }, { state: 'sqlite:./state.db' })
    for (let i = 0; i < 5; i++) await call(`${first.dataUrl}/up/x`)
    const second = await started({ up: [server, BREAKING] }, { state: 'sqlite:./state.db', folder: first.folder })
    expect(await call(`${second.dataUrl}/up/x`)).toMatchObject({ code: 'breaker-open' })
    expect(server.arrivals).toHaveLength(5)
  })

  test('and after the configuration was loaded again', async () => {
    const server = await provider((socket) => socket.write(answer('500 Internal Server Error')))
    const sidecar = await started({ up: [server, BREAKING] })
    for (let i = 0; i < 5; i++) await call(`${sidecar.dataUrl}/up/x`)
    await sidecar.reload()
    expect(await call(`${sidecar.dataUrl}/up/x`)).toMatchObject({ code: 'breaker-open' })
    expect(server.arrivals).toHaveLength(5)
  })
})

test('a provider that accepts and never answers holds up nobody but its own callers, and not for longer than agreed', async () => {
  const hanging = await provider(() => undefined)
  const healthy = await provider()
  const { dataUrl } = await started({
    bad: [hanging, 'retry: { attempts: 1 }, timeout: { response: 800ms }, volume: { concurrency: 20, queue: 5 }, breaker: { failures: 1000 }'],
    good: [healthy, 'retry: { attempts: 1 }']
  })
  const stuck = Array.from({ length: 40 }, (_, i) => call(`${dataUrl}/bad/${i}`))
  await until(() => hanging.arrivals.length === 20)
  const others = await Promise.all(Array.from({ length: 50 }, (_, i) => call(`${dataUrl}/good/${i}`)))
  expect(others.every(({ status }) => status === 200)).toBe(true)
  const outcomes = await Promise.all(stuck)
  expect(outcomes.filter(({ code }) => code === 'volume-exhausted')).toHaveLength(15)
  expect(outcomes.filter(({ code }) => code === 'upstream-timeout')).toHaveLength(25)
  await until(() => hanging.open() === 0)
})

test('a provider that flaps is used while it is up and spared while it is down', async () => {
  let isUp = true
  const server = await provider((socket) => (isUp ? socket.write(FINE) : socket.resetAndDestroy()))
  // a cooldown of 50 ms, or up to a quarter more
  const { dataUrl, time } = await started({ up: [server, 'retry: { attempts: 1 }, breaker: { failures: 3, cooldown: 5s, maxCooldown: 5s }'] }, { speed: 100 })
  time.stop()
  const ten = async (): Promise<(string | number)[]> => {
    const outcomes: (string | number)[] = []
    for (let i = 0; i < 10; i++) outcomes.push(await call(`${dataUrl}/up/x`).then(({ status, code }) => code ?? status))
    return outcomes
  }
  const spared = (failures: number): (string | number)[] => Array.from({ length: 10 }, (_, i) => (i < failures ? 'upstream-unreachable' : 'breaker-open'))
  for (let outage = 0; outage < 3; outage++) {
    isUp = true
    time.pass(63)
    expect(await ten()).toEqual(Array.from({ length: 10 }, () => 200))
    isUp = false
    // three to open, then one probe for each cooldown
    expect(await ten()).toEqual(spared(3))
    for (let probe = 0; probe < 5; probe++) {
      time.pass(63)
      expect(await ten()).toEqual(spared(1))
    }
  }
})

async function until(condition: () => boolean): Promise<void> {
  const startedAt = performance.now()
  while (!condition()) {
    if (performance.now() - startedAt > 8000) throw new Error('it did not come to pass')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
