import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { beforeEach, describe, expect, test } from 'vitest'
import type { Request, Response } from '../../../src/exchange/message.ts'
import { CallerGone, Problem } from '../../../src/exchange/problem.ts'
import { idempotency } from '../../../src/policies/idempotency.ts'
import { memoryStore } from '../../../src/state/memory.ts'
import type { Store } from '../../../src/state/store.ts'
import { testClock, type TestClock } from '../../support/clock.ts'
import { answerOf, bytesBody, reports, requestTo } from '../../support/policy-call.ts'

const DAY = 24 * 3_600_000
const SEAL_KEY = Buffer.alloc(32, 7)

/** A provider that counts what arrives and answers from a script, the last line again and again. */
function provider(...script: (Response | Error | (() => Promise<Response>))[]) {
  const arrived: Request[] = []
  async function send(request: Request): Promise<Response> {
    arrived.push(request)
    const line = script[Math.min(arrived.length, script.length) - 1] ?? answerOf(200)
    if (line instanceof Error) throw line
    return typeof line === 'function' ? line() : line
  }
  return { arrived, send }
}

function keyed(body: string, more: Partial<Request> = {}, key = 'k1'): Request {
  const wishes = { waitMs: undefined, respondAsync: false, timeoutMs: undefined, idempotencyKey: key }
  return requestTo('POST', '/orders', { body: bytesBody(body), wishes, ...more })
}

let clock: TestClock
let store: Store
beforeEach(() => {
  clock = testClock()
  store = memoryStore({ clock })
})

function policyOf(sharedStore = store) {
  const { events, report } = reports()
  return { events, policy: idempotency({ clock, random: () => 0, report, upstream: 'acme', store: sharedStore, sealKey: SEAL_KEY }) }
}

describe('within 24 hours', () => {
  test('the same key and payload get the same answer, and the provider is asked once', async () => {
    const { policy, events } = policyOf()
    const { arrived, send } = provider(answerOf(201, '{"id":1}', ['Location', '/orders/1', 'X-Å', 'é']))
    const first = await policy(keyed('a'), send)
    await clock.advance(DAY - 1000)
    const second = await policy(keyed('a'), send)
    expect(second).toEqual({ ...first, source: 'cache' })
    expect(arrived).toHaveLength(1)
    expect(events).toEqual([{ kind: 'call-avoided', upstream: 'acme', reason: 'cache' }])
  })

  test('a restart forgets nothing', async () => {
    const { arrived, send } = provider(answerOf(201, 'made'))
    await policyOf().policy(keyed('a'), send)
    expect((await policyOf().policy(keyed('a'), send)).status).toBe(201)
    expect(arrived).toHaveLength(1)
  })

  test.each([
    ['body', keyed('b')],
    ['target', keyed('a', { target: '/orders?x=1' })],
    ['method', keyed('a', { method: 'PATCH' })]
  ])('another %s under the same key is refused with 422', async (_what, other) => {
    const { policy } = policyOf()
    const { arrived, send } = provider(answerOf(200))
    await policy(keyed('a'), send)
    await expect(policy(other, send)).rejects.toMatchObject({ code: 'bad-request', status: 422 })
    expect(arrived).toHaveLength(1)
  })

  test('keys of other credentials and callers are other keys', async () => {
    const { policy } = policyOf()
    const { arrived, send } = provider(answerOf(200))
    await policy(keyed('a'), send)
    await policy(keyed('b', { credential: 'finfo' }), send)
    await policy(keyed('c', { fields: ['Authorization', 'Bearer app'] }), send)
    await policy(keyed('d', {}, 'k2'), send)
    expect(arrived).toHaveLength(4)
  })

  test('nothing of the answer or the key is in the store in clear', async () => {
    const { send } = provider(answerOf(201, 'personal data'))
    await policyOf().policy(keyed('a', {}, 'my-secret-key'), send)
    const keys = await store.keys('')
    const stored = Buffer.concat(await Promise.all(keys.map(async (key) => (await store.get(key)) ?? Buffer.alloc(0)))).toString('latin1')
    expect(keys.join() + stored).not.toMatch(/personal|my-secret-key|orders/)
    expect(stored.length).toBeGreaterThan(0)
  })
})

test('after 24 hours the key may be used again', async () => {
  const { policy } = policyOf()
  const { arrived, send } = provider(answerOf(200))
  await policy(keyed('a'), send)
  await clock.advance(DAY + 1000)
  expect((await policy(keyed('b'), send)).source).toBe('upstream')
  expect(arrived).toHaveLength(2)
})

test.each([
  ['a 5xx', answerOf(503)],
  ['a 429', answerOf(429)],
  ['a 409', answerOf(409)],
  ['a 401', answerOf(401)],
  ['a redirect', answerOf(302)],
  ['an unknown outcome', new Problem('outcome-unknown')]
])('%s is not kept: the same key is sent again', async (_what, failure) => {
  const { policy } = policyOf()
  const { arrived, send } = provider(failure, answerOf(201))
  await policy(keyed('a'), send).catch((error: unknown) => error)
  expect((await policy(keyed('a'), send)).status).toBe(201)
  expect(arrived).toHaveLength(2)
})

test('a refusal of the payload is kept like a success', async () => {
  const { policy } = policyOf()
  const { arrived, send } = provider(answerOf(400, 'no such product'))
  await policy(keyed('a'), send)
  expect((await policy(keyed('a'), send)).status).toBe(400)
  expect(arrived).toHaveLength(1)
})

describe('a duplicate of a call under way', () => {
  test('waits and gets the same answer', async () => {
    const { policy, events } = policyOf()
    const { promise, resolve } = Promise.withResolvers<Response>()
    const { arrived, send } = provider(() => promise)
    const all = [1, 2, 3, 4].map(() => policy(keyed('a'), send))
    resolve(answerOf(201, 'made'))
    expect((await Promise.all(all)).map(({ source }) => source)).toEqual(['upstream', 'collapsed', 'collapsed', 'collapsed'])
    expect(arrived).toHaveLength(1)
    expect(events.map((event) => event.kind)).toEqual(['call-avoided', 'call-avoided', 'call-avoided'])
  })

  test('with another payload is refused at once', async () => {
    const { policy } = policyOf()
    const { promise, resolve } = Promise.withResolvers<Response>()
    const { send } = provider(() => promise)
    const first = policy(keyed('a'), send)
    await expect(policy(keyed('b'), send)).rejects.toMatchObject({ status: 422 })
    resolve(answerOf(200))
    expect((await first).status).toBe(200)
  })

  test('sends for itself when the first one failed, one after the other', async () => {
    const { policy } = policyOf()
    const { arrived, send } = provider(answerOf(503), answerOf(201))
    const all = await Promise.all([1, 2, 3].map(() => policy(keyed('a'), send)))
    expect(all.map(({ status }) => status)).toEqual([503, 201, 201])
    expect(arrived).toHaveLength(2)
  })

  test('that leaves abandons its own wait only', async () => {
    const { policy } = policyOf()
    const { promise, resolve } = Promise.withResolvers<Response>()
    const { send } = provider(() => promise)
    const leaver = new AbortController()
    const first = policy(keyed('a'), send)
    const second = policy(keyed('a', { signal: leaver.signal }), send)
    leaver.abort(new CallerGone())
    await expect(second).rejects.toThrow(CallerGone)
    resolve(answerOf(200))
    expect((await first).status).toBe(200)
  })

  test('in another replica finds the answer in the shared store', async () => {
    const shared: Store = { ...store, kind: 'redis' }
    const { promise, resolve } = Promise.withResolvers<Response>()
    const { arrived, send } = provider(() => promise)
    const first = policyOf(shared).policy(keyed('a'), send)
    await clock.advance(0)
    const second = policyOf(shared).policy(keyed('a'), send)
    await clock.advance(1000)
    resolve(answerOf(201))
    await clock.advance(1000)
    expect([(await first).source, (await second).source]).toEqual(['upstream', 'collapsed'])
    expect(arrived).toHaveLength(1)
  })
})

describe('passes without being remembered', () => {
  test.each([
    ['a safe method', keyed('', { method: 'GET' })],
    ['a request without a key', requestTo('POST', '/orders', { body: bytesBody('a') })],
    ['a body too large to replay', keyed('', { body: { kind: 'stream', stream: Readable.from([]), sizeBytes: undefined } })]
  ])('%s', async (_what, request) => {
    const { policy } = policyOf()
    const { arrived, send } = provider(answerOf(200))
    await policy(request, send)
    await policy(request, send)
    expect(arrived).toHaveLength(2)
  })

  test('an answer over 1 MiB, whole', async () => {
    const { policy } = policyOf()
    const chunk = Buffer.alloc(300_000, 'x')
    const large = (): Response => ({
      ...answerOf(200),
      body: { kind: 'stream', stream: Readable.from([chunk, chunk, chunk, chunk], { objectMode: false }), sizeBytes: undefined }
    })
    const { arrived, send } = provider(async () => large())
    const { body } = await policy(keyed('a'), send)
    expect(body.kind === 'stream' ? (await buffer(body.stream)).length : 0).toBe(1_200_000)
    await policy(keyed('a'), send)
    expect(arrived).toHaveLength(2)
  })

  test('an event stream, not held back', async () => {
    const { policy } = policyOf()
    const body: Response['body'] = { kind: 'stream', stream: new Readable({ read() {} }), sizeBytes: undefined }
    const { send } = provider({ ...answerOf(200, '', ['Content-Type', 'text/event-stream']), body })
    expect((await policy(keyed('a'), send)).body).toBe(body)
  })

  test('everything, where the store fails', async () => {
    const broken: Store = { ...store, put: () => Promise.reject(new Error('disk full')) }
    const { policy, events } = policyOf(broken)
    const { send } = provider(answerOf(201, 'made'))
    expect((await policy(keyed('a'), send)).status).toBe(201)
    expect(events).toMatchObject([{ kind: 'warning', about: 'acme' }])
  })
})
