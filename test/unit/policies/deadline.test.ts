import type { Signal } from '../../../src/exchange/signal.ts'
import { expect, test } from 'vitest'
import type { Send } from '../../../src/exchange/chain.ts'
import type { CallerWishes, Request } from '../../../src/exchange/message.ts'
import { CallerGone } from '../../../src/exchange/problem.ts'
import { deadline } from '../../../src/policies/deadline.ts'
import { testClock } from '../../support/clock.ts'
import { answerOf, reports, requestTo } from '../../support/policy-call.ts'

const NONE: CallerWishes = { waitMs: undefined, respondAsync: false, timeoutMs: undefined, idempotencyKey: undefined }

function setup() {
  const clock = testClock()
  return { clock, policy: deadline({ total: 150_000 }, { clock, report: reports().report, random: () => 0, upstream: 'acme' }) }
}

/** A provider that never answers; what goes on below gives up when the signal says so, as every room must. */
const silence: Send = (request) =>
  new Promise((_resolve, reject) => {
    request.signal.addEventListener('abort', () => reject(request.signal.reason))
  })

test.each<[string, Partial<CallerWishes>, number, string]>([
  ['timeout.total', {}, 150_000, 'upstream-timeout'],
  ['Attache-Timeout', { timeoutMs: 5000 }, 5000, 'upstream-timeout'],
  ['Prefer: wait', { waitMs: 3000 }, 3000, 'upstream-wait'],
  ['the shorter of the two', { waitMs: 9000, timeoutMs: 5000 }, 5000, 'upstream-timeout'],
  ['timeout.total, however long the caller would wait', { waitMs: 900_000, timeoutMs: 900_000 }, 150_000, 'upstream-timeout']
])('%s bounds the request', async (_name, wishes, limitMs, code) => {
  const { clock, policy } = setup()
  let failure: unknown
  const startedAt = clock.now()
  let seen: Request | undefined
  void policy(requestTo('GET', '/', { wishes: { ...NONE, ...wishes } }), (request) => {
    seen = request
    return silence(request)
  }).catch((error: unknown) => (failure = error))
  await clock.advance(limitMs - 1)
  expect(failure).toBeUndefined()
  expect(seen?.deadlineAt).toBe(startedAt + limitMs)
  await clock.advance(1)
  expect(failure).toMatchObject({ code })
  expect(clock.pending).toBe(0)
})

test('an outer deadline is not made longer', async () => {
  const { clock, policy } = setup()
  let seen = 0
  const outer = clock.now() + 1000
  await policy(requestTo('GET', '/', { deadlineAt: outer }), async (request) => {
    seen = request.deadlineAt
    return answerOf(200)
  })
  expect(seen).toBe(outer)
})

test('a caller who leaves is passed on, and one who had left is not begun', async () => {
  const { policy } = setup()
  const caller = new AbortController()
  const running = policy(requestTo('GET', '/', { signal: caller.signal }), silence).catch((error: unknown) => error)
  caller.abort(new CallerGone())
  expect(await running).toBeInstanceOf(CallerGone)
  let begun = 0
  const late = policy(requestTo('GET', '/', { signal: caller.signal }), async () => {
    begun += 1
    return answerOf(200)
  })
  await expect(late).rejects.toBeInstanceOf(CallerGone)
  expect(begun).toBe(0)
})

test('once the header is there neither the deadline nor the caller’s signal touches the answer', async () => {
  const { clock, policy } = setup()
  const caller = new AbortController()
  let inner: Signal | undefined
  await policy(requestTo('GET', '/', { signal: caller.signal }), async (request) => {
    inner = request.signal
    return answerOf(200)
  })
  await clock.advance(1_000_000)
  caller.abort(new CallerGone())
  expect(inner?.aborted).toBe(false)
  expect(clock.pending).toBe(0)
})
