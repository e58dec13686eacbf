import { Readable } from 'node:stream'
import { beforeEach, describe, expect, test } from 'vitest'
import type { Event } from '../../../src/exchange/events.ts'
import type { Request, Response } from '../../../src/exchange/message.ts'
import { CallerGone, Problem } from '../../../src/exchange/problem.ts'
import { leases, type LeaseRule } from '../../../src/policies/leases.ts'
import { memoryStore } from '../../../src/state/memory.ts'
import type { Store } from '../../../src/state/store.ts'
import { testClock, type TestClock } from '../../support/clock.ts'
import { answerOf, bytesBody, reports, requestTo } from '../../support/policy-call.ts'

const MINUTE = 60_000
const SEAL_KEY = Buffer.alloc(32, 7)
const RULE: LeaseRule = { match: 'GET /connection-string', share: 0.9, expires: 'field:seconds' }
const HIT = 'hit; detail=lease'

let clock: TestClock
let store: Store
beforeEach(() => {
  clock = testClock()
  store = memoryStore({ clock })
})

/** A provider that lends a new secret, good for an hour, whenever it is asked; `answer` changes its mind. */
class Provider {
  readonly asked: Request[] = []
  answer: (count: number, request: Request) => Response | Promise<Response> = (count) => secret(count)
  readonly send = async (request: Request): Promise<Response> => {
    this.asked.push(request)
    request.trace.attempts += 1
    return this.answer(this.asked.length, request)
  }
}

function secret(count: number, seconds: unknown = 3600): Response {
  return answerOf(200, JSON.stringify({ connectionString: `CANARY-${count}`, seconds }), ['Content-Type', 'application/json', 'X-Ünknown', 'kept'])
}

type Setup = { rules?: readonly LeaseRule[]; fields?: readonly string[]; store?: Store; identity?: () => string; totalMs?: number; baseUrl?: string }

function replica(provider: Provider, setup: Setup = {}) {
  const { events, report } = reports()
  const policy = leases(
    { rules: setup.rules ?? [RULE], fields: setup.fields ?? ['Accept', 'Accept-Language'], totalMs: setup.totalMs ?? 150_000 },
    {
      clock,
      random: () => 0,
      report,
      upstream: 'acme',
      store: setup.store ?? store,
      sealKey: SEAL_KEY,
      baseUrl: setup.baseUrl ?? 'https://api.example/',
      identityOf: (credential) => setup.identity?.() ?? credential ?? ''
    }
  )
  return {
    events,
    ask: (fields: readonly string[] = [], more: Partial<Request> = {}): Promise<Response> =>
      policy(requestTo('GET', '/connection-string', { fields, ...more }), provider.send),
    send: (request: Request): Promise<Response> => policy(request, provider.send)
  }
}

function textOf({ body }: Response): string {
  return body.kind === 'bytes' ? body.bytes.toString() : body.kind
}

function nameOf(response: Response): string {
  return /CANARY-\d+/.exec(textOf(response))?.[0] ?? textOf(response)
}

describe('a secret on loan', () => {
  test('is asked for once and answered from the state until most of its validity has passed', async () => {
    const provider = new Provider()
    const { ask, events } = replica(provider)
    const first = await ask()
    expect([first.source, first.cacheStatus]).toEqual(['upstream', 'fwd=uri-miss; fwd-status=200; stored; detail=lease'])
    for (let minute = 1; minute < 54; minute++) {
      await clock.advance(MINUTE)
      const again = await ask()
      expect(again).toMatchObject({ status: 200, source: 'cache', cacheStatus: HIT, body: first.body })
      expect(again.fields).toEqual([...first.fields.slice(0, -1), String(minute * 60)])
    }
    expect(provider.asked).toHaveLength(1)
    expect(events.every((event) => event.kind === 'call-avoided' && event.reason === 'cache')).toBe(true)
    await clock.advance(MINUTE)
    const next = await ask()
    expect([nameOf(next), next.cacheStatus]).toEqual(['CANARY-2', 'fwd=stale; fwd-status=200; stored; detail=lease'])
    expect(nameOf(await ask())).toBe('CANARY-2')
    expect(provider.asked).toHaveLength(2)
  })

  test('survives a restart and serves every replica', async () => {
    const provider = new Provider()
    await replica(provider).ask()
    await clock.advance(30 * MINUTE)
    expect(nameOf(await replica(provider).ask())).toBe('CANARY-1')
    expect(nameOf(await replica(provider).ask())).toBe('CANARY-1')
    expect(provider.asked).toHaveLength(1)
  })

  test('is one ask for a thousand callers at once, and for replicas at once', async () => {
    const provider = new Provider()
    const lent = Promise.withResolvers<void>()
    provider.answer = async (count) => {
      await lent.promise
      return secret(count)
    }
    const [one, other] = [replica(provider), replica(provider)]
    const asks = Array.from({ length: 1000 }, () => one.ask())
    await clock.advance(0)
    const elsewhere = other.ask()
    await clock.advance(0)
    lent.resolve()
    const answers = await Promise.all(asks)
    await clock.advance(200)
    expect(new Set([...answers, await elsewhere].map(nameOf))).toEqual(new Set(['CANARY-1']))
    expect(provider.asked).toHaveLength(1)
    expect(answers.map((answer) => answer.source).toSorted()).toEqual([...Array.from({ length: 999 }, () => 'collapsed'), 'upstream'])
  })

  test('is not readable in the state, and a record put in another place does not open', async () => {
    const provider = new Provider()
    await replica(provider).ask()
    const [key = ''] = await store.keys('lease/')
    const sealed = (await store.get(key)) ?? Buffer.alloc(0)
    expect(key).not.toContain('connection-string')
    expect(sealed.toString('latin1')).not.toMatch(/CANARY|connectionString|application/)
    const elsewhere = memoryStore({ clock })
    await replica(provider, { store: elsewhere, baseUrl: 'https://other.example/' }).ask()
    const [otherKey = ''] = await elsewhere.keys('lease/')
    await elsewhere.put(otherKey, sealed)
    expect(nameOf(await replica(provider, { store: elsewhere, baseUrl: 'https://other.example/' }).ask())).toBe('CANARY-3')
  })

  test('belongs to one credential, provider, target and payload, and to the fields answers are known to depend on', async () => {
    const provider = new Provider()
    const rules = [
      { ...RULE, match: '/**' },
      { ...RULE, match: 'POST /**' }
    ]
    const { send, ask } = replica(provider, { rules, fields: ['Accept', 'S4-TenantId'] })
    const others: (() => Promise<Response>)[] = [
      () => ask(),
      () => ask([], { credential: 'a' }),
      () => ask([], { credential: 'b' }),
      () => ask(['Authorization', 'Bearer of-the-app']),
      () => ask(['Authorization', 'Bearer of-another']),
      () => ask(['S4-TenantId', 't1']),
      () => send(requestTo('GET', '/connection-string?queue=2')),
      () => send(requestTo('GET', '/other')),
      () => send(requestTo('POST', '/connection-string', { body: bytesBody('{"queue":1}') })),
      () => send(requestTo('POST', '/connection-string', { body: bytesBody('{"queue":2}') })),
      () => replica(provider, { rules, baseUrl: 'https://test.example/' }).ask()
    ]
    for (const other of others) await other()
    expect(provider.asked).toHaveLength(others.length)
    for (const other of others) expect((await other()).source).toBe('cache')
    expect(provider.asked).toHaveLength(others.length)
  })

  test('is the same whatever the caller accepts, holds already or wants a part of', async () => {
    const provider = new Provider()
    const { ask } = replica(provider)
    await ask(['Accept', 'application/json', 'Accept-Encoding', 'gzip', 'If-None-Match', '"x"', 'Range', 'bytes=0-1', 'X-Mine', '1'])
    expect(provider.asked[0]?.fields).toEqual(['Accept', 'application/json', 'X-Mine', '1', 'Accept-Encoding', 'identity', 'Cache-Control', 'no-store'])
    expect((await ask(['Accept', '*/*', 'If-None-Match', '"y"'])).status).toBe(200)
    expect(provider.asked).toHaveLength(1)
  })

  test('that a new credential sees is another one', async () => {
    const provider = new Provider()
    let identity = 'secret-1'
    const { ask } = replica(provider, { identity: () => identity })
    await ask()
    identity = 'secret-2'
    expect(nameOf(await ask())).toBe('CANARY-2')
  })

  test.each([
    ['a method that is not declared', requestTo('HEAD', '/connection-string')],
    ['another path', requestTo('GET', '/customers')],
    ['a streamed body', requestTo('GET', '/connection-string', { body: { kind: 'stream', stream: Readable.from([]), sizeBytes: undefined } })]
  ])('is none where the request has %s', async (_name, request) => {
    const provider = new Provider()
    const { send } = replica(provider)
    await send(request)
    await send(request)
    expect(provider.asked).toEqual([request, request])
  })

  test('a caller that leaves takes nobody with it, and what was asked is kept', async () => {
    const provider = new Provider()
    const lent = Promise.withResolvers<Response>()
    provider.answer = () => lent.promise
    const { ask } = replica(provider)
    const leaver = new AbortController()
    const first = ask([], { signal: leaver.signal })
    await clock.advance(0)
    const second = ask()
    await clock.advance(0)
    leaver.abort(new CallerGone())
    await expect(first).rejects.toBeInstanceOf(CallerGone)
    expect(provider.asked[0]?.signal.aborted).toBe(false)
    lent.resolve(secret(1))
    expect(nameOf(await second)).toBe('CANARY-1')
    expect((await ask()).cacheStatus).toBe(HIT)
  })

  test('an ask that hangs ends with the longest a request may take', async () => {
    const provider = new Provider()
    provider.answer = (_count, { signal }) => new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    const { ask } = replica(provider, { totalMs: 20_000 })
    const asked = ask().catch((error: unknown) => error)
    await clock.advance(20_000)
    expect(await asked).toMatchObject({ code: 'upstream-timeout' })
  })
})

describe('a provider that fails', () => {
  const failing: [string, () => Response | Promise<Response>][] = [
    ['503', () => answerOf(503, 'down')],
    ['429', () => answerOf(429)],
    ['401', () => answerOf(401)],
    ['a problem', () => Promise.reject(new Problem('breaker-open'))],
    ['an answer that breaks off', () => ({ ...answerOf(200), body: { kind: 'stream', stream: broken(), sizeBytes: 100 } })]
  ]

  test.each(failing)('with %s costs nothing while the lease is good, and is left alone for a minute', async (_name, failure) => {
    const provider = new Provider()
    const { ask } = replica(provider)
    await ask()
    provider.answer = failure
    await clock.advance(55 * MINUTE)
    for (let second = 0; second < 50; second++) {
      expect(await ask()).toMatchObject({ status: 200, cacheStatus: HIT })
      await clock.advance(1000)
    }
    expect(provider.asked).toHaveLength(2)
    await clock.advance(10_000)
    expect(nameOf(await ask())).toBe('CANARY-1')
    expect(provider.asked).toHaveLength(3)
  })

  test('is the answer once the lease has ended, for all who wait, and nothing of it is kept', async () => {
    const provider = new Provider()
    const { ask } = replica(provider)
    await ask()
    await clock.advance(60 * MINUTE)
    provider.answer = () => answerOf(503, 'down', ['Retry-After', '60'])
    const answers = await Promise.all([ask(), ask(), ask()])
    expect(answers.map((answer) => [answer.status, answer.source, textOf(answer)])).toEqual([
      [503, 'upstream', 'down'],
      [503, 'collapsed', 'down'],
      [503, 'collapsed', 'down']
    ])
    expect(provider.asked).toHaveLength(2)
    provider.answer = (count) => secret(count)
    expect(nameOf(await ask())).toBe('CANARY-3')
  })

  test('with a problem at the first ask fails all who wait for it with that problem', async () => {
    const provider = new Provider()
    provider.answer = () => Promise.reject(new Problem('upstream-unreachable'))
    const { ask } = replica(provider)
    const outcomes = await Promise.allSettled([ask(), ask()])
    expect(outcomes.map((outcome) => (outcome.status === 'rejected' ? outcome.reason : undefined))).toEqual([
      expect.objectContaining({ code: 'upstream-unreachable' }),
      expect.objectContaining({ code: 'upstream-unreachable' })
    ])
    expect(provider.asked).toHaveLength(1)
  })

  test('by being slow holds nobody up while the lease is good; what it brings at last is used', async () => {
    const provider = new Provider()
    const { ask } = replica(provider)
    await ask()
    await clock.advance(55 * MINUTE)
    const lent = Promise.withResolvers<Response>()
    provider.answer = () => lent.promise
    const asked = ask()
    await clock.advance(2_000)
    expect(nameOf(await asked)).toBe('CANARY-1')
    lent.resolve(secret(2))
    await clock.advance(0)
    expect(nameOf(await ask())).toBe('CANARY-2')
    expect(provider.asked).toHaveLength(2)
  })
})

describe('an app that says its secret was rejected', () => {
  const REJECTED = ['Cache-Control', 'no-cache']

  test('gets another one, once a minute at most, over restarts and replicas', async () => {
    const provider = new Provider()
    const { ask } = replica(provider)
    await ask()
    const fresh = await ask(REJECTED)
    expect([nameOf(fresh), fresh.cacheStatus]).toEqual(['CANARY-2', 'fwd=request; fwd-status=200; stored; detail=lease'])
    for (let second = 0; second < 59; second++) {
      expect(nameOf(await replica(provider).ask(REJECTED))).toBe('CANARY-2')
      await clock.advance(1000)
    }
    expect(provider.asked).toHaveLength(2)
    await clock.advance(1000)
    expect(nameOf(await ask(['Pragma', 'no-cache']))).toBe('CANARY-3')
    expect(nameOf(await replica(provider).ask())).toBe('CANARY-3')
  })

  test('gets the held one where the provider has no other to give, however often it asks', async () => {
    const provider = new Provider()
    const { ask } = replica(provider)
    await ask()
    provider.answer = () => answerOf(500)
    for (let second = 0; second < 59; second++) {
      expect(nameOf(await ask(REJECTED))).toBe('CANARY-1')
      await clock.advance(1000)
    }
    expect(provider.asked).toHaveLength(2)
  })

  test('shares the new one with others who say so at the same time', async () => {
    const provider = new Provider()
    const { ask } = replica(provider)
    await ask()
    const answers = await Promise.all(Array.from({ length: 20 }, () => ask(REJECTED)))
    expect(new Set(answers.map(nameOf))).toEqual(new Set(['CANARY-2']))
    expect(provider.asked).toHaveLength(2)
  })

  test('only-if-cached and no-store change nothing about a lease that is held', async () => {
    const provider = new Provider()
    const { ask } = replica(provider)
    provider.answer = () => answerOf(504)
    expect((await ask(['Cache-Control', 'only-if-cached'])).status).toBe(504)
    expect(provider.asked[0]?.fields).toEqual(['Cache-Control', 'only-if-cached'])
    provider.answer = (count) => secret(count)
    await ask(['Cache-Control', 'no-store'])
    expect((await ask(['Cache-Control', 'no-store'])).cacheStatus).toBe(HIT)
    expect((await ask(['Cache-Control', 'only-if-cached, no-cache'])).cacheStatus).toBe(HIT)
    expect(provider.asked).toHaveLength(2)
  })
})

describe('an answer that is no lease', () => {
  test.each<[string, Response]>([
    ['names no end', answerOf(200, '{"connectionString":"CANARY"}')],
    ['has ended already', secret(1, 0)],
    ['is not JSON', answerOf(200, 'CANARY')],
    ['is empty', answerOf(200)],
    ['is encoded although we asked for none of that', { ...secret(1), fields: ['Content-Encoding', 'br'] }]
  ])('passes, is asked for every time, and is told of once: it %s', async (_name, answer) => {
    const provider = new Provider()
    provider.answer = () => answer
    const { ask, events } = replica(provider)
    expect(await ask()).toEqual(answer)
    expect(await ask()).toEqual(answer)
    expect(provider.asked).toHaveLength(2)
    expect(events.filter((event) => event.kind === 'warning')).toEqual([
      {
        kind: 'warning',
        about: 'acme',
        message: 'answers to GET /connection-string are not kept as leases: no end that lies ahead is found by field:seconds'
      }
    ] satisfies Event[])
    expect(await store.keys('lease/')).toEqual([])
  })

  test.each([404, 403, 500, 202, 206])('passes without a word with status %d', async (status) => {
    const provider = new Provider()
    provider.answer = () => ({ ...secret(1), status })
    const { ask, events } = replica(provider)
    expect((await ask()).status).toBe(status)
    expect(events).toEqual([])
    expect(await store.keys('lease/')).toEqual([])
  })

  test('is streamed to the one who asked where it is long, and asked for anew by the others', async () => {
    const provider = new Provider()
    const long = Buffer.alloc(80 * 1024, 'x')
    provider.answer = () => ({ ...answerOf(200), body: { kind: 'stream', stream: Readable.from([long]), sizeBytes: undefined } })
    const { ask } = replica(provider)
    const answers = await Promise.all([ask(), ask()])
    expect(provider.asked).toHaveLength(2)
    for (const { body } of answers) {
      if (body.kind !== 'stream') throw new Error(body.kind)
      expect(Buffer.concat(await body.stream.toArray())).toEqual(long)
    }
  })

  test('nobody is left with a long answer that nobody reads', async () => {
    const provider = new Provider()
    const stream = Readable.from([Buffer.alloc(80 * 1024)])
    const lent = Promise.withResolvers<Response>()
    provider.answer = () => lent.promise
    const { ask } = replica(provider)
    const leaver = new AbortController()
    const asked = ask([], { signal: leaver.signal }).catch((error: unknown) => error)
    await clock.advance(0)
    leaver.abort(new CallerGone())
    await asked
    lent.resolve({ ...answerOf(200), body: { kind: 'stream', stream, sizeBytes: undefined } })
    await clock.advance(0)
    expect(stream.destroyed).toBe(true)
  })
})

test('a lease from a future that a clock set back has made is none', async () => {
  const provider = new Provider()
  await replica(provider).ask()
  clock = testClock(clock.now() - 24 * 60 * MINUTE)
  expect(nameOf(await replica(provider).ask())).toBe('CANARY-2')
})

function broken(): Readable {
  return new Readable({
    read() {
      this.destroy(new Error('reset'))
    }
  })
}
