import { request as httpRequest } from 'node:http'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { FAULTS } from '../support/faults.ts'
import type { FaultServer } from '../support/fault-server.ts'
import { testSidecar, type TestSidecar } from '../support/sidecar.ts'
import matrix from './fault-matrix.json' with { type: 'json' }

/** The fault matrix: every cell with a provider of its own, through a real sidecar. */

type Call = { method: string; path: string; bodyBytes?: number; fields?: Record<string, string> }
type Outcome = { text: string; ms: number; hasProxyStatus: boolean }
type Cell = { fault: string; call: string; expected: string; server: FaultServer; outcome: Outcome }

const CALLS: Record<string, Call> = matrix.calls
const EXPECTED: Record<string, Record<string, string | null>> = matrix.expected
const SHORT_TIMEOUTS: Record<string, Record<string, string>> = matrix.shortTimeouts
const LADDER_MS = [50, 100]
const SHORT_TIMEOUT_MS = 600
const RETRY_AFTER_MS = 1000
// what a busy machine may add
const TOLERANCE_MS = 3000

const wanted = Object.entries(EXPECTED).flatMap(([fault, row]) =>
  Object.keys(CALLS).flatMap((call) => {
    const expected = row[call] === undefined ? row['*'] : row[call]
    return typeof expected === 'string' ? [{ fault, call, expected }] : []
  })
)

const cells = new Map<string, Cell>()
let sidecar: TestSidecar

beforeAll(async () => {
  const servers = await Promise.all(
    wanted.map(async ({ fault, call }) => {
      const start = FAULTS[fault]
      if (start === undefined) throw new Error(`no fault is called ${fault}`)
      return start({ isPrimed: call === 'GET cached', times: Infinity })
    })
  )
  const upstreams = Object.fromEntries(
    servers.map((server, i) => {
      const timeout = { ...matrix.upstream.timeout, ...SHORT_TIMEOUTS[wanted[i]?.fault ?? ''] }
      return [`u${i}`, { ...matrix.upstream, baseUrl: server.url, timeout }]
    })
  )
  sidecar = await testSidecar(`upstreams: ${JSON.stringify(upstreams)}`)
  const upNext = wanted.entries()
  // so many at a time as leave the one process that plays all parts time to play them
  await Promise.all(
    Array.from({ length: 48 }, async () => {
      for (const [i, { fault, call, expected }] of upNext) {
        const server = servers[i]
        const options = CALLS[call]
        if (server === undefined || options === undefined) throw new Error('incomplete matrix')
        const url = `${sidecar.dataUrl}/u${i}${options.path}`
        if (call === 'GET cached') await ask(url, options)
        cells.set(`${fault} × ${call}`, { fault, call, expected, server, outcome: await ask(url, options) })
      }
    })
  )
}, 30_000)

afterAll(async () => {
  await sidecar.stop()
  await Promise.all([...cells.values()].map(({ server }) => server.close()))
})

describe.each(Object.keys(EXPECTED))('%s', (fault) => {
  test.each(wanted.filter((cell) => cell.fault === fault))('$call: $expected', ({ call, expected }) => {
    const cell = cells.get(`${fault} × ${call}`)
    expect(cell?.outcome.text).toBe(expected)
    expect(cell?.outcome.ms).toBeLessThan(longest(fault, expected) + TOLERANCE_MS)
  })
})

describe('over the whole matrix', () => {
  const all = (): Cell[] => [...cells.values()]

  test('a POST never arrives twice, unless it was declared repeatable', () => {
    expect(all().filter(({ call, server }) => call.startsWith('POST') && server.arrivals.length > 1)).toEqual([])
  })

  test('attempts are never closer together than the ladder and Retry-After', () => {
    const gaps = all().flatMap(({ fault, call, server }) => {
      const times = server.arrivals.slice(call === 'GET cached' ? 1 : 0).map(({ at }) => at)
      const asked = fault.endsWith('Retry-After: 1') ? RETRY_AFTER_MS : 0
      return times.slice(1).map((at, i) => ({ gap: at - (times[i] ?? 0), least: Math.max(LADDER_MS[i] ?? 0, asked) }))
    })
    expect(gaps.length).toBeGreaterThan(50)
    expect(gaps.filter(({ gap, least }) => gap < least)).toEqual([])
  })

  test('bodies that are sent again are the same bodies', () => {
    const bodies = all().flatMap(({ call, server }) =>
      server.arrivals.map(({ body }) => ({ call, length: body.length, isRight: body.every((byte) => byte === 120) }))
    )
    expect(bodies.filter(({ call, length, isRight }) => !isRight || length !== (CALLS[call]?.bodyBytes ?? 0))).toEqual([])
  })

  test('local answers say that they are ours, the provider’s never do', () => {
    const wrong = all().filter(({ outcome }) => outcome.hasProxyStatus !== /^\d+ (?:upstream|outcome)-/.test(outcome.text))
    expect(wrong.map(({ fault, call, outcome }) => `${fault} × ${call}: ${outcome.text}`)).toEqual([])
  })
})

/** How long a cell may take by its own rules: every attempt to its limit, every wait to its end. */
function longest(fault: string, expected: string): number {
  const attempts = Number(/(\d) attempts?$/.exec(expected)?.[1])
  const wait = fault.endsWith('Retry-After: 1') ? RETRY_AFTER_MS : Math.max(...LADDER_MS)
  return attempts * (fault in SHORT_TIMEOUTS ? SHORT_TIMEOUT_MS : 0) + (attempts - 1) * wait
}

function ask(url: string, call: Call): Promise<Outcome> {
  return new Promise((resolve) => {
    const startedAt = performance.now()
    const request = httpRequest(url, { method: call.method, headers: call.fields ?? {}, agent: false }, (response) => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      const { statusCode = 0, headers } = response
      const done = (isWhole: boolean): void => {
        const body = Buffer.concat(chunks).toString()
        const code = /urn:attache:problem:([a-z-]+)/.exec(body)?.[1]
        const isStale = statusCode === 200 && body === 'stored'
        const mark = code ?? (isStale ? 'stale' : statusCode !== 200 ? undefined : isWhole ? 'whole' : 'broken off')
        const made = Number(headers['attache-attempts'])
        const text = `${statusCode}${mark === undefined ? '' : ` ${mark}`}, ${made} attempt${made === 1 ? '' : 's'}`
        resolve({ text, ms: performance.now() - startedAt, hasProxyStatus: headers['proxy-status'] !== undefined })
      }
      response.on('end', () => done(true))
      response.on('error', () => done(false))
    })
    request.on('error', (error: NodeJS.ErrnoException) =>
      resolve({ text: `no answer: ${error.code}`, ms: performance.now() - startedAt, hasProxyStatus: false })
    )
    if (call.bodyBytes === undefined) request.end()
    // without a length it goes out in chunks, so that the sidecar has to stream it
    else if (call.bodyBytes > 100) for (const part of parts(call.bodyBytes)) request.write(part)
    if (call.bodyBytes !== undefined) request.end(call.bodyBytes <= 100 ? Buffer.alloc(call.bodyBytes, 'x') : undefined)
  })
}

function parts(bytes: number): Buffer[] {
  return Array.from({ length: 10 }, () => Buffer.alloc(bytes / 10, 'x'))
}
