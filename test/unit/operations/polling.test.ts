import fc from 'fast-check'
import { beforeEach, describe, expect, test } from 'vitest'
import type { Request, Response } from '../../../src/exchange/message.ts'
import { CallerGone, Problem } from '../../../src/exchange/problem.ts'
import { field } from '../../../src/http/fields.ts'
import { targetBehind } from '../../../src/operations/polling.ts'
import { memoryStore } from '../../../src/state/memory.ts'
import { background, wishing } from '../../support/background.ts'
import { testClock, type TestClock } from '../../support/clock.ts'
import { answerOf } from '../../support/policy-call.ts'

const PLACE = ['Location', 'https://api.test/base/results/1']

let clock: TestClock
beforeEach(() => {
  clock = testClock()
})

/** A provider that takes on work and has the result after `readyMs`; until then it says `notYet`. */
function worker(
  readyMs: number,
  notYet: (look: number) => Response | Error = () => answerOf(202, 'soon'),
  accept: Response = answerOf(202, 'accepted', PLACE)
) {
  const startedAt = clock.now()
  const looks: { at: number; request: Request }[] = []
  async function provider(request: Request): Promise<Response> {
    if (request.method !== 'GET') return accept
    looks.push({ at: clock.now() - startedAt, request })
    if (clock.now() - startedAt >= readyMs) return answerOf(200, 'result')
    const answer = notYet(looks.length)
    if (answer instanceof Error) throw answer
    return answer
  }
  const house = background(provider, { clock, store: memoryStore({ clock }) })
  return { ...house, looks, gaps: () => looks.map(({ at }, i) => at - (looks[i - 1]?.at ?? 0)) }
}

const waiting = (waitMs: number, more: Parameters<typeof wishing>[3] = {}) => wishing('POST', '/work', { waitMs }, { text: 'a', ...more })
const look = (more: Parameters<typeof wishing>[3] = {}) => wishing('GET', '/results/1', {}, more)

describe('Prefer: wait on work that takes longer', () => {
  test('gives the result, after looks at growing intervals', async () => {
    const { send, gaps } = worker(3000)
    const pending = send(waiting(60_000))
    await clock.advance(10_000)
    expect(await pending).toMatchObject({ status: 200, source: 'upstream' })
    expect(gaps().map(Math.round)).toEqual([250, 400, 640, 1024, 1638])
  })

  test('takes 404 for "not yet"', async () => {
    const { send } = worker(1000, () => answerOf(404))
    const pending = send(waiting(60_000))
    await clock.advance(2000)
    expect((await pending).status).toBe(200)
  })

  test('never looks before Retry-After, on the 202 or later', async () => {
    const { send, gaps } = worker(15_000, () => answerOf(202, '', ['Retry-After', '10']), answerOf(202, '', [...PLACE, 'Retry-After', '5']))
    const pending = send(waiting(60_000))
    await clock.advance(20_000)
    expect((await pending).status).toBe(200)
    expect(gaps()).toEqual([5000, 10_000])
  })

  test('hands over the provider’s 202 when the wait runs out, and looks no more', async () => {
    const { send, looks } = worker(100_000)
    const pending = send(waiting(2000))
    await clock.advance(2000)
    const answer = await pending
    expect(answer.status).toBe(202)
    expect(field(answer.fields, 'location')).toBe(PLACE[1])
    const before = looks.length
    await clock.advance(60_000)
    expect(looks).toHaveLength(before)
  })

  test('for a repeatable request works the same, and a wait on the place itself goes on waiting', async () => {
    const { send } = worker(8000)
    const first = send(wishing('PUT', '/work', { waitMs: 2000 }))
    await clock.advance(2000)
    expect(field((await first).fields, 'location')).toBe(PLACE[1])
    const second = send(wishing('GET', '/results/1', { waitMs: 20_000 }))
    await clock.advance(20_000)
    expect(await second).toMatchObject({ status: 200 })
  })

  test('does not look on another host: that 202 is handed over at once', async () => {
    const { send, looks } = worker(0, undefined, answerOf(202, '', ['Location', 'https://elsewhere.test/results/1']))
    expect((await send(waiting(60_000))).status).toBe(202)
    await clock.advance(60_000)
    expect(looks).toEqual([])
  })

  test('asks with the caller’s fields, save those that spoke of the body or the condition', async () => {
    const { send, looks } = worker(0)
    const fields = ['Accept', 'text/csv', 'Content-Type', 'application/json', 'If-Match', '"1"', 'Idempotency-Key', 'k', 'S4-TenantId', 't']
    const pending = send(waiting(60_000, { fields }))
    await clock.advance(1000)
    await pending
    expect(looks[0]?.request).toMatchObject({
      method: 'GET',
      target: '/results/1',
      body: { kind: 'none' },
      fields: ['Accept', 'text/csv', 'S4-TenantId', 't', 'Cache-Control', 'no-cache']
    })
  })

  test('goes on through failures that pass, and hands over the 202 after one that does not', async () => {
    const passing = worker(2000, (nth) => (nth === 1 ? new Problem('breaker-open', { retryAfterMs: 3000 }) : answerOf(202)))
    const pending = passing.send(waiting(60_000))
    await clock.advance(10_000)
    expect((await pending).status).toBe(200)
    expect(passing.gaps()).toEqual([250, 3000])

    const lasting = worker(2000, () => new Problem('unknown-operation'))
    const refused = lasting.send(waiting(60_000))
    await clock.advance(1000)
    expect((await refused).status).toBe(202)
    expect(lasting.looks).toHaveLength(1)
  })

  test('gives up after poll.deadline', async () => {
    const { send, looks } = worker(Infinity)
    const pending = send(waiting(86_400_000))
    await clock.advance(400_000)
    expect((await pending).status).toBe(202)
    expect(looks.at(-1)?.at).toBeLessThanOrEqual(330_000)
  })

  test('ends with its caller', async () => {
    const { send, looks } = worker(Infinity)
    const caller = new AbortController()
    const [outcome] = await Promise.all([
      Promise.allSettled([send(waiting(60_000, { signal: caller.signal }))]),
      clock.advance(1000).then(() => caller.abort(new CallerGone()))
    ])
    expect(outcome[0]?.status).toBe('rejected')
    const before = looks.length
    await clock.advance(60_000)
    expect(looks).toHaveLength(before)
  })

  test('follows a place that moves on', async () => {
    const moved = worker(1000, () => answerOf(202, '', ['Location', '/base/results/2']))
    const pending = moved.send(waiting(60_000))
    await clock.advance(10_000)
    expect((await pending).status).toBe(200)
    expect(moved.looks.map(({ request }) => request.target)).toEqual(['/results/1', '/results/2', '/results/2', '/results/2'].slice(0, moved.looks.length))
    expect(moved.looks.length).toBeGreaterThan(1)
  })

  test('under any times of answer the gaps between looks never shrink', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: 290_000 }), fc.array(fc.constantFrom(202, 404)), async (readyMs, statuses) => {
        clock = testClock()
        const { send, gaps } = worker(readyMs, (nth) => answerOf(statuses[nth % Math.max(1, statuses.length)] ?? 202))
        const pending = send(waiting(400_000))
        await clock.advance(400_000)
        expect((await pending).status).toBe(200)
        expect(gaps()).toEqual(gaps().toSorted((a, b) => a - b))
        expect(Math.max(...gaps())).toBeLessThanOrEqual(30_000)
      }),
      { numRuns: 20 }
    )
  })
})

describe('many who wait for one place', () => {
  test('share every look', async () => {
    const { send, looks, events } = worker(3000)
    const all = Array.from({ length: 50 }, () => send(waiting(60_000)))
    await clock.advance(10_000)
    expect((await Promise.all(all)).map(({ status }) => status)).toEqual(all.map(() => 200))
    expect(looks).toHaveLength(5)
    expect(events.filter((event) => event.kind === 'call-avoided')).toHaveLength(49 * 5)
  })

  test('each leave for themselves', async () => {
    const { send } = worker(3000)
    const leaver = new AbortController()
    const left = Promise.allSettled([send(waiting(60_000, { signal: leaver.signal }))])
    const stays = send(waiting(60_000))
    await clock.advance(1000)
    leaver.abort(new CallerGone())
    await clock.advance(10_000)
    expect((await left)[0]?.status).toBe('rejected')
    expect((await stays).status).toBe(200)
  })

  test('never share an answer between callers with credentials of their own', async () => {
    const { send, looks } = worker(0)
    await send(wishing('POST', '/work', {}))
    const answers = ['a', 'b'].map((user) => send(look({ fields: ['Authorization', `Bearer ${user}`] })))
    await clock.advance(10_000)
    expect((await Promise.all(answers)).map(({ source }) => source)).toEqual(['upstream', 'upstream'])
    expect(looks).toHaveLength(2)
  })
})

describe('an app that looks for itself', () => {
  test('too eagerly, is made to wait for the provider’s tempo', async () => {
    const { send, looks, gaps } = worker(Infinity)
    expect((await send(wishing('POST', '/work', {}))).status).toBe(202)
    const app = (async () => {
      for (let i = 0; i < 100; i++) {
        await send(look())
        await clock.sleep(10)
      }
    })()
    await clock.advance(60_000)
    expect(looks.length).toBeLessThan(12)
    // the app’s own 10 ms come on top where it asks after the turn
    expect(gaps()).toEqual(gaps().toSorted((a, b) => a - b))
    await clock.advance(300_000)
    await app
  })

  test('gets the result untouched, and from then on is not held back', async () => {
    const { send, looks } = worker(0)
    await send(wishing('POST', '/work', {}))
    const first = send(look())
    await clock.advance(250)
    expect(await first).toMatchObject({ status: 200, source: 'upstream' })
    await Promise.all([send(look()), send(look()), send(look())])
    expect(looks).toHaveLength(4)
  })

  test('and cannot wait that long, is told when to come again', async () => {
    const { send } = worker(Infinity, undefined, answerOf(202, '', [...PLACE, 'Retry-After', '20']))
    await send(wishing('POST', '/work', {}))
    await expect(send(wishing('GET', '/results/1', { timeoutMs: 5000 }))).rejects.toMatchObject({ code: 'upstream-wait', details: { retryAfterMs: 20_000 } })
  })

  test('and joins a look that takes longer than it can wait, is let go in time', async () => {
    const house = background(async (request) => (request.method === 'GET' ? new Promise<Response>(() => undefined) : answerOf(202, '', PLACE)), {
      clock,
      store: memoryStore({ clock })
    })
    await house.send(wishing('POST', '/work', {}))
    const [outcome] = await Promise.all([Promise.allSettled([house.send(wishing('GET', '/results/1', { timeoutMs: 5000 }))]), clock.advance(5000)])
    expect(outcome).toMatchObject([{ status: 'rejected', reason: { code: 'upstream-timeout' } }])
  })

  test('at other places is not held back', async () => {
    const { send, looks } = worker(Infinity)
    await send(wishing('POST', '/work', {}))
    await Promise.all([send(wishing('GET', '/results/2', {})), send(wishing('GET', '/results/2', {}))])
    expect(looks).toHaveLength(2)
  })
})

test.each([
  ['https://api.test/base/results/1?x=1#y', '/results/1?x=1'],
  ['/base/results/1', '/results/1'],
  ['2', '/work/2'],
  ['?page=2', '/work/1?page=2'],
  ['https://api.test:443/base/r', '/r'],
  ['https://elsewhere.test/base/r', undefined],
  ['http://api.test/base/r', undefined],
  ['https://user@api.test/base/r', undefined],
  ['/other/r', undefined],
  ['/base/../other', undefined],
  ['/base/%2e%2e/other', undefined],
  ['/base/a%2f..%2f..%2fother', undefined],
  ['/base/a\\..\\..\\..\\other', undefined],
  ['https://[', undefined]
])('the place %j is asked at %j', (location, target) => {
  expect(targetBehind(location, '/work/1', new URL('https://api.test/base/'))).toBe(target)
})
