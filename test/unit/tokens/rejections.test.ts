import { describe, expect, test } from 'vitest'
import { testClock } from '../../support/clock.ts'
import { issued, json, opened, tokenService } from '../../support/token-service.ts'

const MINUTE = 60_000

describe('a provider that answers 401', () => {
  test('gets one renewed token, and the attempt is worth one replay', async () => {
    const one = await opened()
    const first = await one.authorize()
    expect(await one.reject(first)).toBe(true)
    expect(await one.bearer()).toBe('Bearer token-2')
    expect(one.events.filter((event) => event.kind === 'token-request').map((event) => event.reason)).toEqual(['cold', 'rejected'])
  })

  test('once a minute at most: a token that ends sooner is renewed all the same', async () => {
    const one = await opened()
    one.service.answer = (_asked, count) => issued(`token-${count}`, { expires_in: 30 })
    expect(await one.reject(await one.authorize())).toBe(true)
    await one.clock.advance(MINUTE / 2)
    expect(await one.bearer()).toBe('Bearer token-3')
  })

  test('a thousand times for one token causes one renewal', async () => {
    const one = await opened()
    const first = await one.authorize()
    const verdicts = await Promise.all(Array.from({ length: 1000 }, () => one.reject(first)))
    expect(verdicts.every(Boolean)).toBe(true)
    expect(one.service.asked).toHaveLength(2)
  })

  test('to a token that is replaced already causes a replay and no renewal', async () => {
    const one = await opened()
    const first = await one.authorize()
    await one.reject(first)
    // long enough for another forced renewal to be allowed
    await one.clock.advance(2 * MINUTE)
    expect(await one.reject(first)).toBe(true)
    expect(one.service.asked).toHaveLength(2)
  })

  test('to everything causes a renewal a minute at most, and no more in an hour than the cap', async () => {
    const one = await opened()
    const from = one.clock.now()
    while (one.clock.now() < from + 60 * MINUTE) {
      await one.reject(await one.authorize())
      await one.clock.advance(5000)
    }
    const forced = one.events.filter((event) => event.kind === 'token-request' && event.reason === 'rejected')
    expect(forced).toHaveLength(4)
    const times = one.service.asked.map((asked) => asked.at - from)
    for (const [index, at] of times.slice(2).entries()) expect(at - (times[index + 1] ?? 0)).toBeGreaterThanOrEqual(MINUTE)
  })

  test('does not get a fresh budget from a restart', async () => {
    const clock = testClock()
    const service = tokenService(clock)
    const before = await opened({}, { clock, service })
    await before.reject(await before.authorize())
    const after = await opened({}, { clock, service, store: before.store })
    expect(await after.reject(await after.authorize())).toBe(false)
    expect(service.asked).toHaveLength(2)
  })

  test('is believed where another replica has renewed meanwhile: its token is taken, nothing is asked', async () => {
    const clock = testClock()
    const service = tokenService(clock)
    const here = await opened({}, { clock, service })
    const old = await here.authorize()
    const there = await opened({}, { clock, service, store: here.store })
    await there.reject(await there.authorize())
    expect(service.asked).toHaveLength(2)
    expect(await here.reject(old)).toBe(true)
    expect(await here.bearer()).toBe('Bearer token-2')
    expect(service.asked).toHaveLength(2)
  })

  test.each([
    ['Bearer error="insufficient_scope"'],
    ['Basic realm="x", Bearer realm="a, b", ERROR="insufficient_scope", scope="write"'],
    ['Bearer error="invalid_request"']
  ])('for another reason than the token causes nothing: %s', async (challenge) => {
    const one = await opened()
    expect(await one.reject(await one.authorize(), ['WWW-Authenticate', challenge])).toBe(false)
    expect(one.service.asked).toHaveLength(1)
  })

  test.each([
    ['Bearer error="invalid_token", error_description="The token is expired"'],
    ['bearer ERROR=invalid_token'],
    ['Negotiate abc==, Bearer realm="x \\" error=\\"insufficient_scope"'],
    ['Basic error="insufficient_scope"'],
    ['"']
  ])('for the token, or without a reason, causes a renewal: %s', async (challenge) => {
    const one = await opened()
    expect(await one.reject(await one.authorize(), ['WWW-Authenticate', challenge])).toBe(true)
  })

  test('while the token service is down leaves the answer as it is, and the token in use', async () => {
    const one = await opened()
    const first = await one.authorize()
    one.service.answer = () => json(500, {})
    expect(await one.reject(first)).toBe(false)
    expect(await one.bearer()).toBe('Bearer token-1')
    expect(await one.reject(first)).toBe(false)
    expect(one.service.asked).toHaveLength(2)
  })
})

describe('a credential that is refused for good', () => {
  test.each([
    [401, 'invalid_client'],
    [400, 'unauthorized_client'],
    [400, 'invalid_scope'],
    [400, 'unsupported_grant_type'],
    [200, 'invalid_client']
  ])('latches: %d %s', async (status, error) => {
    const one = await opened()
    one.service.answer = () => json(status, { error })
    expect(await one.bearer()).toBe('credential-rejected')
    for (let i = 0; i < 20; i++) {
      await one.clock.advance(10 * MINUTE)
      expect(await one.bearer()).toBe('credential-rejected')
    }
    expect(one.service.asked).toHaveLength(1)
    expect(one.events).toContainEqual({ kind: 'credential-latched', credential: 'a', error })
    expect(one.events.find((event) => event.kind === 'token-request')).toMatchObject({ result: 'rejected' })
  })

  test('does not latch where the service is only in trouble', async () => {
    const one = await opened()
    one.service.answer = () => json(500, { error: 'invalid_client' })
    expect(await one.bearer()).toBe('token-unavailable')
  })

  test('stays latched over a restart, and is open again with another secret', async () => {
    const clock = testClock()
    const service = tokenService(clock)
    service.answer = () => json(401, { error: 'invalid_client' })
    const first = await opened({}, { clock, service })
    await first.bearer()
    const restarted = await opened({}, { clock, service, store: first.store })
    expect(await restarted.bearer()).toBe('credential-rejected')
    expect(service.asked).toHaveLength(1)
    service.answer = () => issued('good')
    const corrected = await opened({ clientSecret: 'another-secret' }, { clock, service, store: first.store })
    expect(await corrected.bearer()).toBe('Bearer good')
    const back = await opened({}, { clock, service, store: first.store })
    expect(await back.bearer()).toBe('credential-rejected')
    expect(service.asked).toHaveLength(2)
  })

  test('lets the token it has serve to its end', async () => {
    const one = await opened()
    await one.bearer()
    one.service.answer = () => json(401, { error: 'invalid_client' })
    await one.clock.advance(45 * MINUTE)
    for (let minute = 45; minute < 60; minute++) {
      expect(await one.bearer()).toBe('Bearer token-1')
      await one.clock.advance(MINUTE)
    }
    expect(await one.bearer()).toBe('credential-rejected')
    expect(one.service.asked).toHaveLength(2)
  })

  test('is asked about again when an operator says so', async () => {
    const one = await opened()
    one.service.answer = () => json(401, { error: 'invalid_client' })
    await one.bearer()
    one.service.answer = () => issued('good')
    await one.source.renew?.()
    expect(await one.bearer()).toBe('Bearer good')
    expect(one.events.findLast((event) => event.kind === 'token-request')).toMatchObject({ reason: 'operator' })
  })

  test('tells neither app nor status what the service said', async () => {
    const one = await opened()
    one.service.answer = () => json(401, { error: 'invalid_client', error_description: 'canary-words' })
    await expect(one.authorize()).rejects.toSatisfy((problem: Error) => !`${problem.message}${JSON.stringify(problem)}`.includes('canary-words'))
    expect(JSON.stringify(one.source.status())).not.toContain('canary-words')
  })
})
