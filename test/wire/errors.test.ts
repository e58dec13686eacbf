import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { call as callOnce, type Outcome } from '../support/call.ts'
import { FAULTS } from '../support/faults.ts'
import type { FaultServer } from '../support/fault-server.ts'
import { testSidecar, type TestSidecar } from '../support/sidecar.ts'
import { steadyTime } from '../support/steady-time.ts'
import matrix from './fault-matrix.json' with { type: 'json' }

/** The fault matrix: every cell with a provider of its own, through a real sidecar. */

type Call = { method: string; path: string; bodyBytes?: number; fields?: Record<string, string> }
type Cell = { fault: string; call: string; expected: string; server: FaultServer; outcome: Outcome; ms: number }

const CALLS: Record<string, Call> = matrix.calls
const EXPECTED: Record<string, Record<string, string | null>> = matrix.expected
const SHORT_TIMEOUTS: Record<string, Record<string, string>> = matrix.shortTimeouts
const LADDER_MS = [50, 100]
const SHORT_TIMEOUT_MS = 600
const RETRY_AFTER_MS = 1000
// what the one process that plays all parts may add; what the machine takes from it does not count
const TOLERANCE_MS = 3000

const wanted = Object.entries(EXPECTED).flatMap(([fault, row]) =>
  Object.keys(CALLS).flatMap((call) => {
    const expected = row[call] === undefined ? row['*'] : row[call]
    return typeof expected === 'string' ? [{ fault, call, expected }] : []
  })
)

const cells = new Map<string, Cell>()
const time = steadyTime()
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
  sidecar = await testSidecar(`upstreams: ${JSON.stringify(upstreams)}`, { time })
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
        const from = time.now()
        const outcome = await ask(url, options)
        cells.set(`${fault} × ${call}`, { fault, call, expected, server, outcome, ms: time.now() - from })
      }
    })
  )
}, 120_000)

afterAll(async () => {
  await sidecar.stop()
  time.close()
  await Promise.all([...cells.values()].map(({ server }) => server.close()))
})

describe.each(Object.keys(EXPECTED))('%s', (fault) => {
  test.each(wanted.filter((cell) => cell.fault === fault))('$call: $expected', ({ call, expected }) => {
    const cell = cells.get(`${fault} × ${call}`)
    if (cell === undefined) throw new Error('this cell was not played')
    expect(inWords(cell.outcome)).toBe(expected)
    expect(cell.ms).toBeLessThan(longest(fault, expected) + TOLERANCE_MS)
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
    const wrong = all().filter(({ outcome }) => (outcome.headers['proxy-status'] !== undefined) !== (outcome.code !== undefined))
    expect(wrong.map(({ fault, call, outcome }) => `${fault} × ${call}: ${inWords(outcome)}`)).toEqual([])
  })
})

/** How long a cell may take by its own rules: every attempt to its limit, every wait to its end. */
function longest(fault: string, expected: string): number {
  const attempts = Number(/(\d) attempts?$/.exec(expected)?.[1])
  const wait = fault.endsWith('Retry-After: 1') ? RETRY_AFTER_MS : Math.max(...LADDER_MS)
  return attempts * (fault in SHORT_TIMEOUTS ? SHORT_TIMEOUT_MS : 0) + (attempts - 1) * wait
}

function ask(url: string, { method, fields = {}, bodyBytes = 0 }: Call): Promise<Outcome> {
  // in pieces, so that the sidecar has to stream it
  const body = bodyBytes > 100 ? Array.from({ length: 10 }, () => Buffer.alloc(bodyBytes / 10, 'x')) : Buffer.alloc(bodyBytes, 'x')
  return callOnce(url, { method, headers: fields, ...(bodyBytes === 0 ? {} : { body }) })
}

/** An outcome in the words of the matrix. */
function inWords({ status, code, body, isWhole, attempts }: Outcome): string {
  const isStale = status === 200 && body === 'stored'
  const mark = code ?? (isStale ? 'stale' : status !== 200 ? undefined : isWhole ? 'whole' : 'broken off')
  return `${status}${mark === undefined ? '' : ` ${mark}`}, ${attempts} attempt${attempts === 1 ? '' : 's'}`
}
