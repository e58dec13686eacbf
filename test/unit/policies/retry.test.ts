import { Readable } from 'node:stream'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Send } from '../../../src/exchange/chain.ts'
import type { Request, Response } from '../../../src/exchange/message.ts'
import { CallerGone, Problem, type ProblemCode } from '../../../src/exchange/problem.ts'
import { retry, type Brake, type RetryOptions } from '../../../src/policies/retry.ts'
import { testClock } from '../../support/clock.ts'
import { answerOf, reports, requestTo } from '../../support/policy-call.ts'

const OPTIONS: RetryOptions = {
  attempts: 3,
  backoff: [10_000, 30_000, 60_000],
  jitter: 0.2,
  on: [408, 425, 429, 500, 502, 503, 504],
  routes: ['POST /v1/*/invoices/fetch'],
  never: ['POST /v2/*/sms', 'PUT /pay'],
  bufferBytes: 1024,
  budget: 0.2
}

/** `OUTCOMES` of successive attempts: a status, an answer, or a failure with or without a byte sent. */
type Outcome = number | Response | { fails: ProblemCode; sent?: boolean; proxyError?: string }

function setup(outcomes: Outcome[], more: { options?: Partial<RetryOptions>; random?: () => number; breaker?: Brake } = {}) {
  const clock = testClock()
  const { events, report } = reports()
  const policy = retry(
    { ...OPTIONS, ...more.options },
    { clock, report, random: more.random ?? (() => 0), upstream: 'acme', ...(more.breaker ? { breaker: more.breaker } : {}) }
  )
  const attemptsAt: number[] = []
  const startedAt = clock.now()
  const next: Send = async (request) => {
    request.trace.attempts += 1
    request.trace.sent = true
    attemptsAt.push(clock.now() - startedAt)
    const outcome = outcomes[Math.min(attemptsAt.length, outcomes.length) - 1] ?? 200
    if (typeof outcome === 'number') return answerOf(outcome, `attempt ${attemptsAt.length}`)
    if ('status' in outcome) return outcome
    request.trace.sent = outcome.sent ?? true
    throw new Problem(outcome.fails, outcome.proxyError === undefined ? {} : { proxyError: outcome.proxyError })
  }
  async function run(request: Request, forMs = 600_000): Promise<unknown> {
    const settled = policy(request, next).then(
      (response) => response,
      (error: unknown) => error
    )
    await clock.advance(forMs)
    return settled
  }
  return { clock, events, policy, next, attemptsAt, run }
}

test('two failures, then an answer: the app sees the answer, and the ladder was kept', async () => {
  const { run, attemptsAt, events } = setup([500, 503, 200])
  const request = requestTo('GET', '/v1/a')
  expect(await run(request)).toMatchObject({ status: 200 })
  expect(attemptsAt).toEqual([0, 10_000, 40_000])
  expect(request.trace.waitMs).toBe(40_000)
  expect(events).toEqual([
    { kind: 'retry', upstream: 'acme', reason: '500', waitMs: 10_000 },
    { kind: 'retry', upstream: 'acme', reason: '503', waitMs: 30_000 }
  ])
})

test('exactly `attempts` calls are made, then the provider’s own last answer is handed over and counted once', async () => {
  const { run, attemptsAt, events } = setup([503])
  expect(await run(requestTo('GET', '/v1/a'))).toMatchObject({ status: 503, body: { bytes: Buffer.from('attempt 3') } })
  expect(attemptsAt).toHaveLength(3)
  expect(events.filter((event) => event.kind === 'operation-failed')).toEqual([{ kind: 'operation-failed', upstream: 'acme', code: '503' }])
})

test.each(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE'])('%s may be repeated', async (method) => {
  const { run, attemptsAt } = setup([500])
  await run(requestTo(method, '/v1/a'))
  expect(attemptsAt).toHaveLength(3)
})

test.each([
  ['POST', '/v1/orders'],
  ['PATCH', '/v1/orders/1'],
  ['POST', '/v2/7/sms'],
  ['POST', '/v2/7/%73ms'],
  ['PUT', '/pay']
])('%s %s is sent once, whatever the answer', async (method, target) => {
  for (const status of [408, 429, 500, 502, 503, 504]) {
    const { run, attemptsAt } = setup([status])
    expect(await run(requestTo(method, target))).toMatchObject({ status })
    expect(attemptsAt).toHaveLength(1)
  }
})

test('a declared route and an Idempotency-Key make POST repeatable, but not where it is forbidden', async () => {
  const wishes = { waitMs: undefined, respondAsync: false, timeoutMs: undefined, idempotencyKey: '"k1"' }
  const declared = setup([500])
  await declared.run(requestTo('POST', '/v1/7/invoices/fetch?x=1'))
  expect(declared.attemptsAt).toHaveLength(3)
  const keyed = setup([500])
  await keyed.run(requestTo('POST', '/v1/orders', { wishes }))
  expect(keyed.attemptsAt).toHaveLength(3)
  const forbidden = setup([500])
  await forbidden.run(requestTo('POST', '/v2/7/sms', { wishes }))
  expect(forbidden.attemptsAt).toHaveLength(1)
})

test('a 4xx that is not listed is final', async () => {
  for (const status of [400, 401, 403, 404, 409, 410, 422, 480, 204, 304]) {
    const { run, attemptsAt } = setup([status])
    expect(await run(requestTo('GET', '/'))).toMatchObject({ status })
    expect(attemptsAt).toHaveLength(1)
  }
})

test.each(['upstream-unreachable', 'upstream-timeout', 'upstream-protocol'] as const)(
  '%s of a repeatable request is asked again and then named',
  async (code) => {
    const { run, attemptsAt } = setup([{ fails: code }])
    expect(await run(requestTo('GET', '/'))).toMatchObject({ code })
    expect(attemptsAt).toEqual([0, 10_000, 40_000])
  }
)

test.each(['upstream-unreachable', 'upstream-timeout', 'upstream-protocol'] as const)('%s after a POST was sent leaves its outcome unknown', async (code) => {
  const { run, attemptsAt, events } = setup([{ fails: code }])
  expect(await run(requestTo('POST', '/v1/orders'))).toMatchObject({ code: 'outcome-unknown', cause: { code } })
  expect(attemptsAt).toHaveLength(1)
  expect(events).toEqual([{ kind: 'operation-failed', upstream: 'acme', code: 'outcome-unknown' }])
})

test('a POST of which nothing was sent is asked again, even where repeating is forbidden, and stops once it was sent', async () => {
  const { run, attemptsAt } = setup([{ fails: 'upstream-unreachable', sent: false }, { fails: 'upstream-unreachable', sent: true }, 200])
  expect(await run(requestTo('POST', '/v2/7/sms'))).toMatchObject({ code: 'outcome-unknown' })
  expect(attemptsAt).toEqual([0, 10_000])
})

test('a certificate that is not accepted and a header that is too large are not asked for again', async () => {
  for (const proxyError of ['tls_certificate_error', 'http_response_header_section_size']) {
    const { run, attemptsAt } = setup([{ fails: 'upstream-unreachable', sent: false, proxyError }])
    expect(await run(requestTo('GET', '/'))).toMatchObject({ code: 'upstream-unreachable' })
    expect(attemptsAt).toHaveLength(1)
  }
})

test.each(['token-unavailable', 'credential-rejected', 'breaker-open', 'upstream-wait', 'volume-exhausted'] as const)(
  '%s is not waited for here',
  async (code) => {
    const { run, attemptsAt } = setup([{ fails: code, sent: false }])
    expect(await run(requestTo('GET', '/'))).toMatchObject({ code })
    expect(attemptsAt).toHaveLength(1)
  }
)

test('Retry-After is waited out where it is longer than the ladder', async () => {
  const { run, attemptsAt } = setup([answerOf(503, '', ['Retry-After', '45']), answerOf(429, '', ['Retry-After', '1']), 200])
  expect(await run(requestTo('GET', '/'))).toMatchObject({ status: 200 })
  expect(attemptsAt).toEqual([0, 45_000, 75_000])
})

test('a wait the gate imposes counts like Retry-After', async () => {
  const { run, attemptsAt } = setup([{ ...answerOf(503), retryAt: testClock().now() + 100_000 }, 200])
  expect(await run(requestTo('GET', '/'))).toMatchObject({ status: 200 })
  expect(attemptsAt).toEqual([0, 100_000])
})

test('a wait that does not fit the deadline is declined at once, never shortened', async () => {
  const { clock, run, attemptsAt, events } = setup([answerOf(503, 'sorry', ['Retry-After', '45'])])
  const request = requestTo('GET', '/', { deadlineAt: clock.now() + 45_000 })
  expect(await run(request, 0)).toMatchObject({ status: 503, body: { bytes: Buffer.from('sorry') }, fields: ['Retry-After', '45'] })
  expect(attemptsAt).toEqual([0])
  expect(events).toEqual([{ kind: 'operation-failed', upstream: 'acme', code: '503' }])
})

test('gaps are never shorter than ladder or Retry-After, and attempts never more than agreed', async () => {
  const outcome = fc.oneof(
    fc.constantFrom(200, 404, 500, 503),
    fc.nat(90).map((seconds) => answerOf(503, '', ['Retry-After', String(seconds)])),
    fc.record({ fails: fc.constantFrom<ProblemCode>('upstream-unreachable', 'upstream-timeout'), sent: fc.boolean() })
  )
  await fc.assert(
    fc.asyncProperty(
      fc.array(outcome, { minLength: 1, maxLength: 6, size: 'max' }),
      fc.array(fc.nat(60_000), { minLength: 1, maxLength: 4, size: 'max' }),
      fc.integer({ min: 1, max: 6 }),
      fc.double({ min: 0, max: 0.999, noNaN: true }),
      fc.integer({ min: 1, max: 300_000 }),
      fc.constantFrom('GET', 'POST'),
      async (outcomes, backoff, attempts, chance, totalMs, method) => {
        const { clock, run, attemptsAt } = setup(outcomes, { options: { backoff, attempts }, random: () => chance })
        const request = requestTo(method, '/v1/a', { deadlineAt: clock.now() + totalMs })
        await run(request)
        expect(attemptsAt.length).toBeLessThanOrEqual(attempts)
        attemptsAt.slice(1).forEach((at, i) => {
          const before = outcomes[Math.min(i, outcomes.length - 1)] as Outcome
          const asked = typeof before === 'object' && 'status' in before ? Number(before.fields[1]) * 1000 : 0
          const step = backoff[Math.min(i, backoff.length - 1)] ?? 0
          expect(at - (attemptsAt[i] ?? 0)).toBeGreaterThanOrEqual(Math.max(step, asked))
          expect(at).toBeLessThan(totalMs)
          expect(method === 'GET' || (typeof before === 'object' && 'fails' in before && before.sent === false)).toBe(true)
        })
      }
    ),
    { numRuns: 60 }
  )
})

test('jitter spreads callers that failed together', async () => {
  let seed = 0
  const { policy, clock } = setup([], { random: () => (seed++ % 10) / 10 })
  const again: number[] = []
  const startedAt = clock.now()
  for (let caller = 0; caller < 10; caller++) {
    let made = 0
    void policy(requestTo('GET', '/'), async () => {
      if (made++ > 0) again.push(clock.now() - startedAt)
      return answerOf(made === 1 ? 500 : 200)
    })
  }
  await clock.advance(20_000)
  expect(again.toSorted((a, b) => a - b)).toEqual([10_000, 10_200, 10_400, 10_600, 10_800, 11_000, 11_200, 11_400, 11_600, 11_800])
})

test('a flood of failures gets retries up to the budget, and the rest their own answer at once', async () => {
  const { policy, clock } = setup([])
  let calls = 0
  const callers = Array.from({ length: 200 }, () =>
    policy(requestTo('GET', '/'), async () => {
      calls += 1
      return answerOf(503)
    })
  )
  await clock.advance(600_000)
  expect((await Promise.all(callers)).map((response) => response.status)).toEqual(Array.from({ length: 200 }, () => 503))
  expect(calls).toBeGreaterThan(200)
  expect(calls).toBeLessThanOrEqual(200 * 1.2 + 10 * 2)
})

test('a caller who leaves ends the wait', async () => {
  const { policy, next, clock, attemptsAt } = setup([500])
  const caller = new AbortController()
  const settled = policy(requestTo('GET', '/', { signal: caller.signal }), next).catch((error: unknown) => error)
  await clock.advance(1000)
  caller.abort(new CallerGone())
  expect(await settled).toBeInstanceOf(CallerGone)
  await clock.advance(600_000)
  expect(attemptsAt).toHaveLength(1)
  expect(clock.pending).toBe(0)
})

test('a deadline that passes while a POST is under way leaves its outcome unknown, for a GET it is a timeout', async () => {
  const caller = new AbortController()
  caller.abort(new Problem('upstream-timeout'))
  for (const [method, code] of [
    ['POST', 'outcome-unknown'],
    ['GET', 'upstream-timeout']
  ] as const) {
    const { run } = setup([{ fails: 'upstream-timeout' }])
    expect(await run(requestTo(method, '/', { signal: caller.signal }))).toMatchObject({ code })
  }
})

test('an open breaker ends what waits for a retry at once, and nobody starts to wait', async () => {
  const refusal = new Problem('breaker-open', { retryAfterMs: 60_000 })
  const listeners = new Set<() => void>()
  let open = false
  const breaker: Brake = {
    refusal: () => (open ? refusal : undefined),
    onOpen(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    }
  }
  const { policy, next, clock, attemptsAt, run } = setup([500], { breaker })
  const waiting = policy(requestTo('GET', '/'), next).catch((error: unknown) => error)
  await clock.advance(1000)
  open = true
  for (const listener of listeners) listener()
  expect(await waiting).toBe(refusal)
  expect(await run(requestTo('GET', '/'), 0)).toMatchObject({ status: 500 })
  expect(attemptsAt).toHaveLength(2)
  expect(listeners.size).toBe(0)
})

test('an upload that streams past is sent once, unless nothing of it had been read', async () => {
  const upload = (): Request => requestTo('PUT', '/', { body: { kind: 'stream', stream: Readable.from([Buffer.from('large')]), sizeBytes: undefined } })
  const failed = setup([])
  let attempts = 0
  const settled = failed.policy(upload(), async (request) => {
    attempts += 1
    if (request.body.kind === 'stream') for await (const _chunk of request.body.stream) continue
    return answerOf(500)
  })
  await failed.clock.advance(600_000)
  expect([(await settled).status, attempts]).toEqual([500, 1])
  const refused = setup([{ fails: 'upstream-unreachable', sent: false }, 200])
  expect(await refused.run(upload())).toMatchObject({ status: 200 })
})

test('the body of an answer that is not wanted is read to its end or closed', async () => {
  const short = Readable.from([Buffer.from('sorry')])
  const endless = new Readable({ read() {} })
  const streams = [short, endless]
  const { policy, clock } = setup([])
  const settled = policy(requestTo('GET', '/'), async () => {
    const stream = streams.shift()
    return stream === undefined ? answerOf(200) : { ...answerOf(503), body: { kind: 'stream', stream, sizeBytes: undefined } }
  })
  await clock.advance(600_000)
  expect((await settled).status).toBe(200)
  expect([short.readableEnded, short.destroyed, endless.destroyed]).toEqual([true, true, true])
  expect(clock.pending).toBe(0)
})
