import { describe, expect, test } from 'vitest'
import { FetchFailure } from '../../../src/tokens/fetch.ts'
import { attempt, issued, json, opened, tokenService } from '../../support/token-service.ts'
import { testClock } from '../../support/clock.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE

describe('one token for all', () => {
  test('ten thousand callers at once are one token request', async () => {
    const one = await opened()
    // each with a signal of its own, as every request has
    const all = await Promise.all(Array.from({ length: 10_000 }, async () => one.source.authorize(attempt(), new AbortController().signal)))
    expect(new Set(all).size).toBe(1)
    expect(one.service.asked).toHaveLength(1)
  })

  test('a held token is handed out at once, as the same object', async () => {
    const one = await opened()
    const first = await one.authorize()
    const second = one.source.authorize(attempt(), new AbortController().signal)
    expect(second).toBe(first)
    expect(first).toEqual({ fields: ['Authorization', 'Bearer token-1'], query: undefined, clientCertificate: undefined, generation: 1, secrets: ['token-1'] })
  })

  test('a caller who leaves, even the first, gives up only its own wait', async () => {
    const one = await opened()
    const gate = Promise.withResolvers<void>()
    one.service.answer = async () => {
      await gate.promise
      return issued('late')
    }
    const leaving = new AbortController()
    const first = one.source.authorize(attempt(), leaving.signal)
    const second = one.source.authorize(attempt(), new AbortController().signal)
    const gone = new Error('gone')
    leaving.abort(gone)
    await expect(first).rejects.toBe(gone)
    gate.resolve()
    expect((await second).fields[1]).toBe('Bearer late')
    expect(one.service.asked).toHaveLength(1)
  })

  test('a failure is everybody’s, and cools down', async () => {
    const one = await opened()
    one.service.answer = () => json(503, {})
    const all = await Promise.allSettled(Array.from({ length: 100 }, async () => one.source.authorize(attempt(), new AbortController().signal)))
    expect(all.every((result) => result.status === 'rejected' && result.reason.code === 'token-unavailable')).toBe(true)
    await expect(one.authorize()).rejects.toMatchObject({ code: 'token-unavailable', details: { retryAfterMs: 10_000 } })
    expect(one.service.asked).toHaveLength(1)
  })

  test('a request that gets no answer ends after its timeout', async () => {
    const one = await opened({ timeout: '20s' })
    one.service.answer = (asked) => new Promise((_resolve, reject) => asked.signal.addEventListener('abort', () => reject(new FetchFailure('no answer', true))))
    const waiting = one.bearer()
    await one.clock.advance(19_000)
    expect(one.source.status().state).toBe('fetching')
    await one.clock.advance(1_000)
    expect(await waiting).toBe('token-unavailable')
  })
})

describe('a token request that is over', () => {
  test('leaves no timer behind', async () => {
    const one = await opened()
    await one.bearer()
    expect(one.clock.pending).toBe(0)
  })
})

describe('the life of a token', () => {
  test('has no renewal before the agreed share, one in the background after it, and the old one serves meanwhile', async () => {
    const one = await opened({ minUse: 0.7 })
    expect(await one.bearer()).toBe('Bearer token-1')
    await one.clock.advance(0.7 * HOUR - 1)
    expect(await one.bearer()).toBe('Bearer token-1')
    expect(one.service.asked).toHaveLength(1)
    const gate = Promise.withResolvers<void>()
    one.service.answer = async () => {
      await gate.promise
      return issued('renewed')
    }
    await one.clock.advance(1)
    for (let i = 0; i < 10; i++) expect(await one.bearer()).toBe('Bearer token-1')
    expect(one.service.asked).toHaveLength(2)
    gate.resolve()
    await one.clock.advance(0)
    expect(await one.bearer()).toBe('Bearer renewed')
    expect(one.service.asked).toHaveLength(2)
    expect(one.events.findLast((event) => event.kind === 'token-held')).toMatchObject({ reuseRatio: 0.7 })
  })

  test('counts the share from when the answer came, the end from before it was asked for', async () => {
    const one = await opened({ minUse: 0.9 })
    one.service.answer = async () => {
      await one.clock.sleep(100_000)
      return issued('slow', { expires_in: 1000 })
    }
    const waiting = one.bearer()
    await one.clock.advance(100_000)
    expect(await waiting).toBe('Bearer slow')
    one.service.answer = () => issued('next')
    // 950 s after asking is over 0.9 of the life by our count, but only 850 s after it can have begun
    await one.clock.advance(850_000)
    await one.bearer()
    expect(one.service.asked).toHaveLength(1)
    await one.clock.advance(50_000)
    expect(await one.bearer()).toBe('Bearer next')
  })

  test('is not renewed while nobody asks', async () => {
    const one = await opened()
    await one.bearer()
    await one.clock.advance(5 * HOUR)
    expect(one.service.asked).toHaveLength(1)
    expect(await one.bearer()).toBe('Bearer token-2')
    expect(one.events.filter((event) => event.kind === 'token-request').map((event) => event.reason)).toEqual(['cold', 'expired'])
  })

  test('kept warm is renewed shortly before the end, once, when it was used', async () => {
    const one = await opened({ renew: 'keep_warm', margin: '30s' })
    await one.bearer()
    await one.clock.advance(HOUR - 30_001)
    expect(one.service.asked).toHaveLength(1)
    await one.clock.advance(1)
    expect(one.service.asked).toHaveLength(2)
    await one.clock.advance(24 * HOUR)
    expect(one.service.asked).toHaveLength(2)
    expect(one.events.findLast((event) => event.kind === 'token-request')).toMatchObject({ reason: 'warm' })
  })

  test('ends at its end: an expired token is never sent, whatever the token service does', async () => {
    const one = await opened()
    await one.bearer()
    one.service.answer = () => json(500, {})
    await one.clock.advance(HOUR - 1)
    expect(await one.bearer()).toBe('Bearer token-1')
    await one.clock.advance(1)
    expect(await one.bearer()).toBe('token-unavailable')
  })

  test('serves on to its end while renewals fail, on the ladder', async () => {
    const one = await opened({ minUse: 0.7 })
    await one.bearer()
    one.service.answer = () => json(503, {})
    await one.clock.advance(0.7 * HOUR)
    const from = one.clock.now()
    while (one.clock.now() < from + 10 * MINUTE) {
      expect(await one.bearer()).toBe('Bearer token-1')
      await one.clock.advance(1000)
    }
    const times = one.service.asked.slice(1).map((asked) => (asked.at - from) / 1000)
    expect(times.slice(0, 5)).toEqual([0, 10, 40, 100, 160])
  })

  test.each([[undefined], [0], [-5], ['soon'], [null]])('with expires_in %j is a finite one, not a token request per call', async (expiresIn) => {
    const one = await opened()
    one.service.answer = (_asked, count) => issued(`token-${count}`, { expires_in: expiresIn })
    for (let i = 0; i < 100; i++) {
      await one.bearer()
      await one.clock.advance(1000)
    }
    expect(one.service.asked).toHaveLength(1)
    await one.clock.advance(5 * MINUTE)
    expect(await one.bearer()).toBe('Bearer token-2')
  })

  test('of a second is a token request a second at most', async () => {
    const one = await opened()
    one.service.answer = (_asked, count) => issued(`token-${count}`, { expires_in: 0.001 })
    for (let i = 0; i < 100; i++) {
      await one.bearer()
      await one.clock.advance(100)
    }
    expect(one.service.asked.length).toBeLessThanOrEqual(15)
  })
})

describe('a token service that fails', () => {
  test('is asked on the ladder, however many call', async () => {
    const one = await opened()
    one.service.answer = () => json(500, {})
    const from = one.clock.now()
    for (let i = 0; i < 300; i++) {
      expect(await one.bearer()).toBe('token-unavailable')
      await one.clock.advance(1000)
    }
    expect(one.service.asked.map((asked) => (asked.at - from) / 1000)).toEqual([0, 10, 40, 100, 160, 220, 280])
  })

  test('that says Retry-After is left alone for that long', async () => {
    const one = await opened()
    one.service.answer = () => json(429, {}, ['Retry-After', '120'])
    await one.bearer()
    await one.clock.advance(119_999)
    await expect(one.authorize()).rejects.toMatchObject({ details: { retryAfterMs: 1 } })
    expect(one.service.asked).toHaveLength(1)
    await one.clock.advance(1)
    one.service.answer = () => issued('after')
    expect(await one.bearer()).toBe('Bearer after')
  })

  test('that shuts us out without a word is asked every five minutes at most', async () => {
    const one = await opened()
    one.service.answer = () => ({ status: 403, text: 'suspended' })
    for (let i = 0; i < 30; i++) {
      await one.bearer()
      await one.clock.advance(MINUTE)
    }
    expect(one.service.asked).toHaveLength(6)
  })

  test('has its pause kept over restarts: fifty of them in a minute are six requests at most', async () => {
    const clock = testClock()
    const service = tokenService(clock)
    service.answer = () => json(500, {})
    const first = await opened({}, { clock, service })
    for (let i = 0; i < 50; i++) {
      const again = await opened({}, { clock, service, store: first.store })
      expect(await again.bearer()).toBe('token-unavailable')
      await clock.advance(1200)
    }
    expect(service.asked.length).toBeLessThanOrEqual(6)
  })

  test('is waited for by a replica that starts while another one asks', async () => {
    const clock = testClock()
    const service = tokenService(clock)
    const gate = Promise.withResolvers<void>()
    service.answer = async () => {
      await gate.promise
      return issued('shared')
    }
    const here = await opened({}, { clock, service })
    const asking = here.bearer()
    await clock.advance(0)
    const there = await opened({}, { clock, service, store: here.store })
    const waiting = there.bearer()
    await clock.advance(20_000)
    gate.resolve()
    await clock.advance(100)
    expect(await Promise.all([asking, waiting])).toEqual(['Bearer shared', 'Bearer shared'])
    expect(service.asked).toHaveLength(1)
  })

  test('leaves its pause behind even where the process died before the answer', async () => {
    const clock = testClock()
    const service = tokenService(clock)
    service.answer = () => new Promise(() => {})
    const killed = await opened({}, { clock, service })
    void killed.bearer()
    await clock.advance(100)
    // Its mark that it is asking has run out by then, as a dead process renews none; but this one lives, so it is taken away.
    for (const key of await killed.store.keys('asking:')) await killed.store.delete(key)
    const next = await opened({}, { clock, service, store: killed.store })
    expect(await next.bearer()).toBe('token-unavailable')
    expect(service.asked).toHaveLength(1)
    service.answer = () => issued('recovered')
    await clock.advance(10_000)
    for (const key of await killed.store.keys('asking:')) await killed.store.delete(key)
    expect(await next.bearer()).toBe('Bearer recovered')
  })
})
