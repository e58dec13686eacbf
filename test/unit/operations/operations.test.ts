import { Readable } from 'node:stream'
import { beforeEach, describe, expect, test } from 'vitest'
import type { Request, Response } from '../../../src/exchange/message.ts'
import { CallerGone, Problem } from '../../../src/exchange/problem.ts'
import { field } from '../../../src/http/fields.ts'
import { memoryStore } from '../../../src/state/memory.ts'
import type { Store } from '../../../src/state/store.ts'
import { LATER, background, documentOf, wishing } from '../../support/background.ts'
import { testClock, type TestClock } from '../../support/clock.ts'
import { answerOf } from '../../support/policy-call.ts'

const DAY = 86_400_000

let clock: TestClock
let store: Store
beforeEach(() => {
  clock = testClock()
  store = memoryStore({ clock })
})

type Line = Response | Error | 'hang' | ((request: Request) => Promise<Response>)

/** A provider that answers from a script, the last line again and again; `hang` answers only to being aborted. */
function provider(...script: Line[]) {
  const arrived: Request[] = []
  async function send(request: Request): Promise<Response> {
    arrived.push(request)
    const line = script[Math.min(arrived.length, script.length) - 1] ?? answerOf(200)
    if (line instanceof Error) {
      if (line instanceof Problem && line.code !== 'outcome-unknown') request.trace.sent = false
      throw line
    }
    if (line === 'hang') return new Promise((_resolve, reject) => request.signal.addEventListener('abort', () => reject(request.signal.reason)))
    return typeof line === 'function' ? line(request) : line
  }
  return { arrived, send }
}

const house = (send: (request: Request) => Promise<Response>, more: Partial<Parameters<typeof background>[1]> = {}) =>
  background(send, { clock, store, ...more })
const locationOf = (answer: Response) => field(answer.fields, 'location') ?? ''
const unreachable = () => new Problem('upstream-unreachable')

describe('Prefer: respond-async', () => {
  test('is answered 202 at once, and the outcome is there when the work is done', async () => {
    const { promise, resolve } = Promise.withResolvers<Response>()
    const { send, look } = house(() => promise)
    const accepted = await send(wishing('POST', '/orders', LATER, { text: 'a' }))
    expect(accepted.status).toBe(202)
    expect(locationOf(accepted)).toMatch(/^\/_attache\/operations\/[\w-]{22}$/)
    expect(field(accepted.fields, 'preference-applied')).toBe('respond-async')
    expect(await look(locationOf(accepted))).toMatchObject({ status: 202, document: { state: 'running', attempt: 1 } })
    resolve(answerOf(201, '{"id":7}', ['Content-Type', 'application/json', 'Location', 'https://api.test/base/orders/7']))
    await clock.advance(0)
    expect(await look(locationOf(accepted))).toEqual({
      status: 200,
      document: { status: 201, headers: { 'content-type': 'application/json', location: '/acme/orders/7' }, body: '{"id":7}' }
    })
  })

  test('keeps the request before the 202, and before the provider hears of it', async () => {
    let keysAtArrival: string[] = []
    const { send } = house(async () => {
      keysAtArrival = await store.keys('operations/')
      return answerOf(200)
    })
    await send(wishing('POST', '/orders', LATER, { text: 'a' }))
    await clock.advance(0)
    expect(keysAtArrival.map((key) => key.replace(/^.*\//, '')).toSorted()).toEqual(['request', 'state'])
  })

  test('sends on what the caller sent, without its preferences', async () => {
    const { arrived, send } = provider(answerOf(200))
    await house(send).send(wishing('POST', '/orders?x=1', { ...LATER, idempotencyKey: 'k', timeoutMs: 5 }, { text: 'a', fields: ['X-A', 'é'] }))
    await clock.advance(0)
    expect(arrived[0]).toMatchObject({
      method: 'POST',
      target: '/orders?x=1',
      fields: ['X-A', 'é'],
      body: { kind: 'bytes', bytes: Buffer.from('a') },
      credential: 'key',
      wishes: { waitMs: undefined, respondAsync: false, timeoutMs: undefined, idempotencyKey: 'k' }
    })
  })

  test('with wait gives the answer itself where it comes in time, for non-repeatable requests too', async () => {
    const { send } = house(async () => {
      await clock.sleep(2000)
      return answerOf(201, 'made')
    })
    const inTime = send(wishing('POST', '/a', { ...LATER, waitMs: 5000 }))
    const tooLate = send(wishing('POST', '/b', { ...LATER, waitMs: 1000 }))
    await clock.advance(3000)
    expect((await inTime).status).toBe(201)
    expect((await tooLate).status).toBe(202)
    expect(field((await tooLate).fields, 'preference-applied')).toBe('respond-async, wait=1')
  })

  test('is ignored for a body too large to keep', async () => {
    const { send } = house(async () => answerOf(200))
    const body: Request['body'] = { kind: 'stream', stream: Readable.from([]), sizeBytes: undefined }
    expect((await send(wishing('POST', '/upload', LATER, { body }))).status).toBe(200)
  })

  test('leaves no request, answer or credential of it in the store in clear', async () => {
    const { send } = house(async () => answerOf(200, 'personal answer'))
    await send(wishing('POST', '/people/0101701234', LATER, { text: 'personal request' }))
    await clock.advance(0)
    const keys = await store.keys('')
    const values = await Promise.all(keys.map(async (key) => (await store.get(key))?.toString('latin1')))
    expect(values.join() + keys.join()).not.toMatch(/personal|0101701234|acme/)
    expect(keys.length).toBeGreaterThan(0)
  })
})

describe('an outcome', () => {
  const outcomeAfter = async (answer: Response | Error) => {
    const { send, look } = house(provider(answer).send, { retry: { attempts: 1 } })
    const location = locationOf(await send(wishing('GET', '/a', LATER)))
    await clock.advance(0)
    return (await look(location))?.document
  }

  test('that is not text comes as base64', async () => {
    const bytes = Buffer.from([0xff, 0x00, 0x80])
    expect(await outcomeAfter({ ...answerOf(200), body: { kind: 'bytes', bytes } })).toMatchObject({ body: bytes.toString('base64'), bodyEncoding: 'base64' })
  })

  test('that is a problem says so in words of its own', async () => {
    const document = await outcomeAfter(unreachable())
    expect(document).toMatchObject({
      status: 502,
      headers: { 'content-type': 'application/problem+json' },
      problem: { type: 'urn:attache:problem:upstream-unreachable' }
    })
    expect(JSON.parse(String(document?.['body']))).toEqual(document?.['problem'])
  })

  test('of a streamed answer is kept whole, of one too large its header', async () => {
    const streamed = (...sizes: number[]): Response => ({
      ...answerOf(200, '', ['X-A', '1', 'X-A', '2']),
      body: {
        kind: 'stream',
        stream: Readable.from(
          sizes.map((size) => Buffer.alloc(size, 'x')),
          { objectMode: false }
        ),
        sizeBytes: undefined
      }
    })
    expect(await outcomeAfter(streamed(3, 4))).toEqual({ status: 200, headers: { 'x-a': '1, 2' }, body: 'xxxxxxx' })
    expect(await outcomeAfter(streamed(1024 * 1024, 4))).toEqual({ status: 200, headers: { 'x-a': '1, 2' }, body: '', bodyOmitted: true })
  })

  test('is kept for a day, then unknown', async () => {
    const { send, look } = house(async () => answerOf(200))
    const location = locationOf(await send(wishing('GET', '/a', LATER)))
    await clock.advance(DAY - 1000)
    expect((await look(location))?.status).toBe(200)
    await clock.advance(2000)
    expect(await look(location)).toBeUndefined()
  })

  test('of an unknown or malformed id does not exist, and other methods are refused', async () => {
    const { operations } = house(async () => answerOf(200))
    expect(await operations.handle('GET', 'A'.repeat(22))).toBeUndefined()
    expect(await operations.handle('GET', '../../state')).toBeUndefined()
    await expect(operations.handle('PUT', 'A'.repeat(22))).rejects.toMatchObject({ status: 405 })
  })
})

describe('Prefer: wait', () => {
  test('gives the answer itself where it comes in time', async () => {
    const { send } = house(async () => answerOf(200, 'quick'))
    const answer = await send(wishing('GET', '/a', { waitMs: 5000 }))
    expect(answer).toMatchObject({ status: 200, source: 'upstream' })
    expect(await store.keys('')).toEqual([])
  })

  test('that runs out for a repeatable request is answered 202 in time, and the request goes on', async () => {
    const { send, look } = house(async () => {
      await clock.sleep(20_000)
      return answerOf(200, 'late')
    })
    const pending = send(wishing('PUT', '/a', { waitMs: 5000 }, { text: 'b' }))
    await clock.advance(4999)
    expect(await store.keys('')).toEqual([])
    await clock.advance(1)
    const accepted = await pending
    expect(accepted.status).toBe(202)
    expect(field(accepted.fields, 'preference-applied')).toBe('wait=5')
    expect((await look(locationOf(accepted)))?.document).toMatchObject({ state: 'running', attempt: 1 })
    await clock.advance(15_000)
    expect((await look(locationOf(accepted)))?.document).toMatchObject({ status: 200, body: 'late' })
  })

  test('waits for a pause the provider wants, and beyond it in the background', async () => {
    const { arrived, send } = provider(new Problem('breaker-open', { retryAfterMs: 60_000 }), answerOf(200, 'back'))
    const { send: ask, look } = house(send)
    const pending = ask(wishing('GET', '/a', { waitMs: 5000 }))
    await clock.advance(5000)
    const location = locationOf(await pending)
    expect((await look(location))?.document).toMatchObject({ state: 'waiting', nextTryAt: new Date(clock.wallNow() + 55_000).toISOString() })
    await clock.advance(54_999)
    expect(arrived).toHaveLength(1)
    await clock.advance(1)
    expect((await look(location))?.document).toMatchObject({ status: 200 })
  })

  test('for a non-repeatable request stays with the caller', async () => {
    const { arrived, send } = provider(answerOf(200))
    await house(send).send(wishing('POST', '/a', { waitMs: 5000 }))
    expect(arrived[0]?.wishes.waitMs).toBe(5000)
  })

  test('makes a POST repeatable where its route is declared or it has a key, not where it is forbidden', async () => {
    const hanging = house(provider('hang').send, { retry: { routes: ['POST /fetch'], never: ['PUT /sms'] } })
    const answers = [wishing('POST', '/fetch', { waitMs: 10 }), wishing('POST', '/x', { waitMs: 10, idempotencyKey: 'k' })].map((request) =>
      hanging.send(request)
    )
    await clock.advance(10)
    expect((await Promise.all(answers)).map(({ status }) => status)).toEqual([202, 202])
    const { arrived, send } = provider(answerOf(200))
    await house(send, { retry: { never: ['PUT /sms'] } }).send(wishing('PUT', '/sms', { waitMs: 10 }))
    expect(arrived[0]?.wishes.waitMs).toBe(10)
  })

  test('ends with its caller while it waits, and no longer once it was accepted', async () => {
    const { arrived, send } = provider('hang')
    const { send: ask } = house(send)
    const early = new AbortController()
    const left = ask(wishing('GET', '/a', { waitMs: 5000 }, { signal: early.signal }))
    await clock.advance(10)
    early.abort(new CallerGone())
    await expect(left).rejects.toThrow(CallerGone)
    expect(arrived[0]?.signal.aborted).toBe(true)

    const late = new AbortController()
    const accepted = ask(wishing('GET', '/b', { waitMs: 5000 }, { signal: late.signal }))
    await clock.advance(5000)
    expect((await accepted).status).toBe(202)
    late.abort(new CallerGone())
    expect(arrived[1]?.signal.aborted).toBe(false)
  })
})

describe('a background operation', () => {
  test('goes again after a pause, never earlier than told, and stays within the attempts agreed', async () => {
    const { arrived, send } = provider(answerOf(503, '', ['Retry-After', '100']), unreachable(), answerOf(503, 'last'), answerOf(200))
    const { send: ask, look } = house(send)
    const location = locationOf(await ask(wishing('PUT', '/a', LATER)))
    await clock.advance(99_999)
    expect(arrived).toHaveLength(1)
    await clock.advance(1)
    expect(arrived).toHaveLength(2)
    await clock.advance(59_999)
    expect(arrived).toHaveLength(2)
    await clock.advance(DAY / 2)
    expect(arrived).toHaveLength(3)
    expect((await look(location))?.document).toMatchObject({ status: 503, body: 'last' })
  })

  test('that must not be repeated is sent once, whatever the provider answers', async () => {
    const { arrived, send } = provider(answerOf(503))
    const { send: ask, look } = house(send)
    const location = locationOf(await ask(wishing('POST', '/a', LATER)))
    await clock.advance(DAY / 2)
    expect(arrived).toHaveLength(1)
    expect((await look(location))?.document).toMatchObject({ status: 503 })
  })

  test('is given up after its own deadline', async () => {
    const { send, look } = house(provider(new Problem('breaker-open', { retryAfterMs: 60_000 })).send, {
      async: { deadline: 600_000 },
      retry: { attempts: 10 }
    })
    const location = locationOf(await send(wishing('GET', '/a', LATER)))
    await clock.advance(600_000)
    expect((await look(location))?.document).toMatchObject({ problem: { type: 'urn:attache:problem:breaker-open' } })
  })

  test('beyond the bounds of number and bytes is refused with 503, until an outcome is deleted', async () => {
    const few = house(async () => answerOf(200), { async: { operations: 2 } })
    const first = locationOf(await few.send(wishing('GET', '/1', LATER)))
    await few.send(wishing('GET', '/2', LATER))
    await clock.advance(1000)
    await expect(few.send(wishing('GET', '/3', LATER))).rejects.toMatchObject({ code: 'upstream-wait', status: 503, details: { retryAfterMs: DAY - 1000 } })
    expect((await few.operations.handle('DELETE', first.split('/')[3] ?? ''))?.status).toBe(204)
    expect(await few.look(first)).toBeUndefined()
    expect((await few.send(wishing('GET', '/3', LATER))).status).toBe(202)

    const small = house(async () => answerOf(200), { store: memoryStore({ clock }), async: { maxBytes: 10 } })
    expect((await small.send(wishing('POST', '/', LATER, { text: '1234567' }))).status).toBe(202)
    await expect(small.send(wishing('POST', '/', LATER, { text: '1234' }))).rejects.toMatchObject({ status: 503 })
  })

  test('wait=N beyond the bounds is answered upstream-wait', async () => {
    const { send } = house(provider('hang').send, { async: { operations: 0 } })
    const [outcome] = await Promise.all([Promise.allSettled([send(wishing('GET', '/a', { waitMs: 1000 }))]), clock.advance(1000)])
    expect(outcome).toMatchObject([{ status: 'rejected', reason: { code: 'upstream-wait' } }])
  })
})

describe('DELETE', () => {
  const id = (location: string) => location.split('/')[3] ?? ''

  test('cancels what is under way, and nothing of it is left', async () => {
    const { arrived, send } = provider('hang')
    const { send: ask, operations, look } = house(send)
    const location = locationOf(await ask(wishing('PUT', '/a', LATER)))
    await clock.advance(10)
    expect((await operations.handle('DELETE', id(location)))?.status).toBe(204)
    expect(arrived[0]?.signal.aborted).toBe(true)
    expect(await look(location)).toBeUndefined()
    expect(await store.keys('')).toEqual([])
  })

  test('of a non-repeatable request that may have arrived tells that its outcome is unknown', async () => {
    const { send, operations, look } = house(provider('hang').send)
    const location = locationOf(await send(wishing('POST', '/a', LATER)))
    await clock.advance(10)
    const answer = await operations.handle('DELETE', id(location))
    expect(answer?.status).toBe(200)
    expect(answer === undefined ? {} : documentOf(answer)).toMatchObject({ status: 502, problem: { type: 'urn:attache:problem:outcome-unknown' } })
    expect((await look(location))?.status).toBe(200)
  })

  test('of a non-repeatable request that only waits cancels it', async () => {
    const { arrived, send } = provider(new Problem('volume-exhausted', { retryAfterMs: 60_000 }))
    const { send: ask, operations } = house(send)
    const location = locationOf(await ask(wishing('POST', '/a', LATER)))
    await clock.advance(10)
    expect((await operations.handle('DELETE', id(location)))?.status).toBe(204)
    await clock.advance(DAY / 2)
    expect(arrived).toHaveLength(1)
  })

  test('of an unknown operation finds nothing', async () => {
    expect(await house(async () => answerOf(200)).operations.handle('DELETE', 'A'.repeat(22))).toBeUndefined()
  })
})

describe('with an Idempotency-Key', () => {
  const keyed = (text: string) => wishing('POST', '/orders', { ...LATER, idempotencyKey: 'k' }, { text })

  test('the same request is the same operation, at once, under way and after the end', async () => {
    const { arrived, send } = provider(answerOf(201))
    const { send: ask, look } = house(send)
    const both = await Promise.all([ask(keyed('a')), ask(keyed('a'))])
    await clock.advance(1000)
    const third = await house(send).send(keyed('a'))
    expect(new Set([...both, third].map(locationOf)).size).toBe(1)
    expect(arrived).toHaveLength(1)
    expect((await look(locationOf(third)))?.status).toBe(200)
  })

  test('another payload is refused with 422', async () => {
    const { send } = house(provider('hang').send)
    const [, second] = await Promise.allSettled([send(keyed('a')), send(keyed('b'))])
    expect(second).toMatchObject({ status: 'rejected', reason: { status: 422 } })
    await expect(send(keyed('c'))).rejects.toMatchObject({ status: 422 })
  })

  test('may be sent again after a failure', async () => {
    const { arrived, send } = provider(new Problem('outcome-unknown'), answerOf(201))
    const { send: ask, look } = house(send)
    await ask(keyed('a'))
    await clock.advance(0)
    const location = locationOf(await ask(keyed('a')))
    await clock.advance(0)
    expect(arrived).toHaveLength(2)
    expect((await look(location))?.document).toMatchObject({ status: 201 })
  })
})

test('without a preference everything passes through untouched', async () => {
  const answer = answerOf(202, 'x', ['Location', 'https://elsewhere.test/1'])
  const { arrived, send } = provider(answer)
  const request = wishing('POST', '/a', {})
  expect(await house(send).send(request)).toBe(answer)
  expect(arrived[0]).toBe(request)
})
