import { PassThrough, type Readable } from 'node:stream'
import { expect, test } from 'vitest'
import type { Send } from '../../../src/exchange/chain.ts'
import { NO_BODY, type Request, type Response } from '../../../src/exchange/message.ts'
import { CallerGone } from '../../../src/exchange/problem.ts'
import { timeout } from '../../../src/policies/timeout.ts'
import { testClock } from '../../support/clock.ts'
import { answerOf, reports, requestTo } from '../../support/policy-call.ts'

function setup(limits = { response: 30_000, idle: 10_000 }) {
  const clock = testClock()
  return { clock, policy: timeout(limits, { clock, report: reports().report, random: () => 0, upstream: 'acme' }) }
}

/** Stands in for the wire: hands out what it was called with and fails when the signal says so. */
function wire() {
  const line: { request?: Request; answer?: (response: Response) => void } = {}
  const send: Send = (request) =>
    new Promise((resolve, reject) => {
      line.request = request
      line.answer = resolve
      request.signal.addEventListener('abort', () => reject(request.signal.reason))
    })
  return { line, send }
}

function streaming(stream: Readable, type = 'application/octet-stream'): Response {
  return { status: 200, fields: ['Content-Type', type], body: { kind: 'stream', stream, sizeBytes: undefined }, source: 'upstream' }
}

async function outcome<T>(promise: Promise<T>): Promise<unknown> {
  return Promise.race([promise.catch((error: unknown) => error), Promise.resolve('pending')])
}

test('no header in time is upstream-timeout, and the attempt is told to stop', async () => {
  const { clock, policy } = setup()
  const { line, send } = wire()
  const attempt = policy(requestTo('GET', '/'), send)
  attempt.catch(() => 'looked at below')
  await clock.advance(29_999)
  expect(await outcome(attempt)).toBe('pending')
  await clock.advance(1)
  await expect(attempt).rejects.toMatchObject({ code: 'upstream-timeout', details: { proxyError: 'http_response_timeout' } })
  expect(line.request?.signal.aborted).toBe(true)
  expect(clock.pending).toBe(0)
})

test('a small answer leaves no timer behind', async () => {
  const { clock, policy } = setup()
  await policy(requestTo('GET', '/'), async (request) => {
    request.heard?.(0)
    return answerOf(200, 'hello')
  })
  expect(clock.pending).toBe(0)
})

test('a small body that stops arriving is idle, not waited for as long as a header', async () => {
  const { clock, policy } = setup()
  const { line, send } = wire()
  const attempt = policy(requestTo('GET', '/'), send)
  attempt.catch(() => 'looked at below')
  await clock.advance(1000)
  line.request?.heard?.(0)
  await clock.advance(9000)
  line.request?.heard?.(10)
  await clock.advance(9999)
  expect(await outcome(attempt)).toBe('pending')
  await clock.advance(1)
  await expect(attempt).rejects.toMatchObject({ code: 'upstream-timeout' })
})

test('a streamed body breaks off when it stops arriving', async () => {
  const { clock, policy } = setup()
  const { line, send } = wire()
  const stream = new PassThrough()
  const failures: Error[] = []
  stream.on('error', (error) => failures.push(error))
  stream.resume()
  const attempt = policy(requestTo('GET', '/'), send)
  line.request?.heard?.(0)
  line.answer?.(streaming(stream))
  await attempt
  await clock.advance(9000)
  line.request?.heard?.(5)
  await clock.advance(9999)
  expect(stream.destroyed).toBe(false)
  await clock.advance(1)
  expect(stream.destroyed).toBe(true)
  expect(failures).toMatchObject([{ code: 'upstream-timeout' }])
  expect(clock.pending).toBe(0)
})

test('a reader that is slow to take what has arrived does not make the provider idle', async () => {
  const { clock, policy } = setup()
  const { line, send } = wire()
  const stream = new PassThrough()
  const attempt = policy(requestTo('GET', '/'), send)
  line.request?.heard?.(0)
  line.answer?.(streaming(stream))
  await attempt
  stream.write('waiting to be read')
  await clock.advance(100_000)
  expect(stream.destroyed).toBe(false)
})

async function drip(bytes: number, type: string, forMs: number): Promise<boolean> {
  const { clock, policy } = setup()
  const { line, send } = wire()
  const stream = new PassThrough()
  stream.on('error', () => 'seen as destroyed')
  stream.resume()
  const attempt = policy(requestTo('GET', '/', { deadlineAt: clock.now() + 60_000 }), send)
  line.request?.heard?.(0)
  line.answer?.(streaming(stream, type))
  await attempt
  for (let passed = 0; passed < forMs; passed += 5000) {
    await clock.advance(5000)
    line.request?.heard?.(bytes)
  }
  const survived = !stream.destroyed
  stream.destroy()
  return survived
}

test('past the deadline of the request a body may flow but not trickle', async () => {
  expect(await drip(1, 'application/json', 55_000)).toBe(true)
  expect(await drip(1, 'application/json', 90_000)).toBe(false)
  expect(await drip(5000, 'application/json', 300_000)).toBe(true)
})

test('an event stream may be as slow as it likes while it is not idle', async () => {
  expect(await drip(1, 'text/event-stream; charset=utf-8', 300_000)).toBe(true)
})

test('an upload under way is not yet waiting for its header', async () => {
  const { clock, policy } = setup()
  const { send } = wire()
  let readAt = 0
  const request = requestTo('POST', '/', { body: { kind: 'stream', stream: new PassThrough(), sizeBytes: undefined, readAt: () => readAt } })
  const attempt = policy(request, send)
  attempt.catch(() => 'looked at below')
  await clock.advance(25_000)
  readAt = clock.now()
  await clock.advance(29_999)
  expect(await outcome(attempt)).toBe('pending')
  await clock.advance(1)
  await expect(attempt).rejects.toMatchObject({ code: 'upstream-timeout' })
})

test('whoever ends the request ends the attempt, with the reason given', async () => {
  const { clock, policy } = setup()
  const { send } = wire()
  const caller = new AbortController()
  const attempt = policy(requestTo('GET', '/', { signal: caller.signal }), send)
  caller.abort(new CallerGone())
  await expect(attempt).rejects.toBeInstanceOf(CallerGone)
  expect(clock.pending).toBe(0)
})

test('an answer without a body needs no watching', async () => {
  const { clock, policy } = setup()
  await policy(requestTo('HEAD', '/'), async () => ({ ...answerOf(200), body: NO_BODY }))
  expect(clock.pending).toBe(0)
})
