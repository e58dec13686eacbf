import { describe, expect, test } from 'vitest'
import { memoryStore } from '../../../src/state/memory.ts'
import type { Store } from '../../../src/state/store.ts'
import type { FetchAnswer, TokenFetch } from '../../../src/tokens/fetch.ts'
import { FetchFailure } from '../../../src/tokens/fetch.ts'
import { testClock, type TestClock } from '../../support/clock.ts'
import { issued, json, opened, tokenService, type Asked, type OpenedCredential, type TokenService } from '../../support/token-service.ts'

const MINUTE = 60_000
const PASSWORD = { grant: 'password', clientAuth: 'client_secret_post', username: 'user-1', password: 'pässword 1+&=%', scope: 'openid', minUse: 0.95 }
const REFRESH = { grant: 'refresh_token', refreshToken: 'first-refresh', minUse: 0.95 }

/** A realm that hands out a refresh token with every access token, each good for one use. */
function oneTimeRealm(clock: TestClock, refreshLifetime = 1800): { service: TokenService; reused: string[]; answer: (asked: Asked) => Partial<FetchAnswer> } {
  const service = tokenService(clock)
  const live = new Map<string, number>([['first-refresh', Infinity]])
  const used = new Set<string>()
  const reused: string[] = []
  let count = 0
  function answer(asked: Asked): Partial<FetchAnswer> {
    const refresh = asked.parameters.get('refresh_token')
    if (refresh !== null) {
      if (used.has(refresh)) reused.push(refresh)
      used.add(refresh)
      if ((live.get(refresh) ?? 0) < clock.now()) return json(400, { error: 'invalid_grant' })
      live.delete(refresh)
    }
    count += 1
    live.set(`refresh-${count}`, clock.now() + refreshLifetime * 1000)
    return issued(`token-${count}`, { expires_in: 900, refresh_token: `refresh-${count}`, refresh_expires_in: refreshLifetime })
  }
  service.answer = answer
  return { service, reused, answer }
}

function grants(service: TokenService): (string | null)[] {
  return service.asked.map((asked) => asked.parameters.get('grant_type'))
}

describe('the password grant', () => {
  test('sends user, password, client and scope, once', async () => {
    const one = await opened(PASSWORD)
    await one.bearer()
    expect(one.service.asked[0]?.body).toBe(
      'grant_type=password&username=user-1&password=p%C3%A4ssword+1%2B%26%3D%25&scope=openid&client_id=client-1&client_secret=client-secret-1'
    )
    expect(one.service.asked[0]?.headers['authorization']).toBeUndefined()
  })

  test('renews by refresh token as long as that lives: one login for a working day', async () => {
    const clock = testClock()
    const { service, reused } = oneTimeRealm(clock)
    const one = await opened(PASSWORD, { clock, service })
    for (let minute = 0; minute < 480; minute++) {
      expect(await one.bearer()).toMatch(/^Bearer token-/)
      await clock.advance(MINUTE)
    }
    expect(grants(service).filter((grant) => grant === 'password')).toHaveLength(1)
    expect(service.asked.length).toBeLessThanOrEqual(480 / (15 * 0.95) + 1)
    expect(reused).toEqual([])
    expect(service.asked[1]?.body).toMatch(/^grant_type=refresh_token&refresh_token=refresh-1&client_id=client-1&client_secret=client-secret-1$/)
  })

  test('logs in anew after an idle time that outlasts the refresh token, without trying the dead one', async () => {
    const clock = testClock()
    const { service } = oneTimeRealm(clock)
    const one = await opened(PASSWORD, { clock, service })
    await one.bearer()
    await clock.advance(29 * MINUTE)
    await one.bearer()
    await clock.advance(31 * MINUTE)
    await one.bearer()
    expect(grants(service)).toEqual(['password', 'refresh_token', 'password'])
  })

  test('keeps a refresh token the service has said nothing about: it only asked for patience', async () => {
    const clock = testClock()
    const { service, answer } = oneTimeRealm(clock, 86_400)
    const one = await opened({ ...PASSWORD, refreshUse: 'reusable' }, { clock, service })
    await one.bearer()
    await clock.advance(16 * MINUTE)
    service.answer = () => json(429, {})
    await one.bearer()
    service.answer = answer
    await clock.advance(MINUTE)
    expect(await one.bearer()).toBe('Bearer token-2')
    expect(grants(service)).toEqual(['password', 'refresh_token', 'refresh_token'])
  })

  test('does not send a refresh token that ends while it travels', async () => {
    const clock = testClock()
    const { service } = oneTimeRealm(clock)
    const one = await opened(PASSWORD, { clock, service })
    await one.bearer()
    await clock.advance(30 * MINUTE - 5_000)
    await one.bearer()
    expect(grants(service)).toEqual(['password', 'password'])
  })

  test('logs in at once where the service has forgotten the refresh token', async () => {
    const clock = testClock()
    const { service, answer } = oneTimeRealm(clock)
    const one = await opened(PASSWORD, { clock, service })
    await one.bearer()
    service.answer = (asked) =>
      asked.parameters.has('refresh_token') ? json(400, { error: 'invalid_grant', error_description: 'Token is not active' }) : answer(asked)
    await clock.advance(16 * MINUTE)
    expect(await one.bearer()).toBe('Bearer token-2')
    expect(grants(service)).toEqual(['password', 'refresh_token', 'password'])
  })

  test('keeps a refresh token that nobody can have seen: the connection was refused, or the service was busy', async () => {
    const clock = testClock()
    const { service, answer } = oneTimeRealm(clock, 86_400)
    const one = await opened(PASSWORD, { clock, service })
    await one.bearer()
    await clock.advance(16 * MINUTE)
    service.answer = () => Promise.reject(new FetchFailure('it refused the connection', false))
    await one.bearer()
    service.answer = () => json(503, {})
    await clock.advance(10_000)
    await one.bearer()
    service.answer = answer
    await clock.advance(30_000)
    expect(await one.bearer()).toBe('Bearer token-2')
    expect(grants(service)).toEqual(['password', 'refresh_token', 'refresh_token', 'refresh_token'])
  })

  test.each([
    ['no answer came', () => Promise.reject(new FetchFailure('it closed the connection', true))],
    ['the answer was cut off', () => ({ status: 200, text: '{"access_token":"tok' })]
  ])('does not use a refresh token again that may have been used up: %s', async (_name, trouble) => {
    const clock = testClock()
    const { service, answer } = oneTimeRealm(clock, 86_400)
    const one = await opened(PASSWORD, { clock, service })
    await one.bearer()
    await clock.advance(16 * MINUTE)
    service.answer = trouble
    expect(await one.bearer()).toBe('token-unavailable')
    service.answer = answer
    await clock.advance(10_000)
    expect(await one.bearer()).toBe('Bearer token-2')
    expect(grants(service)).toEqual(['password', 'refresh_token', 'password'])
  })

  test('may use it again within the provider’s grace, or where the provider lets it be used for ever', async () => {
    for (const more of [{ refreshGrace: '60s' }, { refreshUse: 'reusable' }]) {
      const clock = testClock()
      const { service, answer } = oneTimeRealm(clock, 86_400)
      const one = await opened({ ...PASSWORD, ...more }, { clock, service })
      await one.bearer()
      await clock.advance(16 * MINUTE)
      service.answer = () => Promise.reject(new FetchFailure('it closed the connection', true))
      await one.bearer()
      service.answer = answer
      await clock.advance(10_000)
      await one.bearer()
      expect(grants(service)).toEqual(['password', 'refresh_token', 'refresh_token'])
    }
  })

  test('goes on with the old refresh token where the answer brings no new one', async () => {
    const one = await opened(PASSWORD)
    one.service.answer = (_asked, count) =>
      issued(`token-${count}`, count === 1 ? { expires_in: 900, refresh_token: 'for-good', refresh_expires_in: 0 } : { expires_in: 900 })
    for (let i = 0; i < 4; i++) {
      await one.bearer()
      await one.clock.advance(15 * MINUTE)
    }
    expect(one.service.asked.slice(1).map((asked) => asked.parameters.get('refresh_token'))).toEqual(['for-good', 'for-good', 'for-good'])
  })

  test('latches on a rejected password', async () => {
    const one = await opened(PASSWORD)
    one.service.answer = () => json(401, { error: 'invalid_grant', error_description: 'Invalid user credentials' })
    await one.bearer()
    await one.clock.advance(60 * MINUTE)
    expect(await one.bearer()).toBe('credential-rejected')
    expect(one.service.asked).toHaveLength(1)
  })
})

describe('the refresh token grant', () => {
  test('begins with the configured token and goes on with what it gets, over restarts', async () => {
    const clock = testClock()
    const { service, reused } = oneTimeRealm(clock, 86_400)
    let one = await opened(REFRESH, { clock, service })
    for (let i = 1; i <= 5; i++) {
      expect(await one.bearer()).toBe(`Bearer token-${i}`)
      await clock.advance(15 * MINUTE)
      one = await opened(REFRESH, { clock, service, store: one.store })
    }
    expect(service.asked.map((asked) => asked.parameters.get('refresh_token'))).toEqual(['first-refresh', 'refresh-1', 'refresh-2', 'refresh-3', 'refresh-4'])
    expect(reused).toEqual([])
  })

  test('wants a new sign-in where its token is refused, and asks no more', async () => {
    const one = await opened(REFRESH)
    one.service.answer = () => json(400, { error: 'invalid_grant' })
    await expect(one.authorize()).rejects.toMatchObject({ code: 'credential-rejected', message: expect.stringMatching(/attache login a/) })
    await one.clock.advance(24 * 60 * MINUTE)
    expect(await one.bearer()).toBe('credential-rejected')
    expect(one.service.asked).toHaveLength(1)
  })

  test('wants a new sign-in where its only token may have been used up', async () => {
    const one = await opened(REFRESH)
    one.service.answer = () => Promise.reject(new FetchFailure('it closed the connection', true))
    expect(await one.bearer()).toBe('token-unavailable')
    await one.clock.advance(MINUTE)
    expect(await one.bearer()).toBe('credential-rejected')
    expect(one.service.asked).toHaveLength(1)
  })

  test('is open again with another first token, for good', async () => {
    const clock = testClock()
    const service = tokenService(clock)
    service.answer = (asked) => (asked.parameters.get('refresh_token') === 'second-refresh' ? issued('good') : json(400, { error: 'invalid_grant' }))
    const one = await opened(REFRESH, { clock, service })
    await one.bearer()
    const next = await opened({ ...REFRESH, refreshToken: 'second-refresh' }, { clock, service, store: one.store })
    expect(await next.bearer()).toBe('Bearer good')
    await clock.advance(61 * MINUTE)
    expect(await next.bearer()).toBe('Bearer good')
  })
})

describe('a process killed at any step of a renewal', () => {
  /** Dies at the given step: from then on nothing it does has any effect, and nothing comes back. */
  function mortal(store: Store, tokenFetch: TokenFetch, diesAt: number): { store: Store; tokenFetch: TokenFetch; steps: () => number } {
    let step = 0
    const never = new Promise<never>(() => {})
    // The step itself is done, and only its outcome is lost: the worst moment to die.
    async function lives<T>(work: () => Promise<T>): Promise<T> {
      step += 1
      if (step > diesAt) return never
      const result = await work()
      return step === diesAt ? never : result
    }
    return {
      steps: () => step,
      tokenFetch: (url, options) => lives(() => tokenFetch(url, options)),
      store: {
        ...store,
        get: (key) => lives(() => store.get(key)),
        put: (key, value, options) => lives(() => store.put(key, value, options)),
        delete: (key) => lives(() => store.delete(key)),
        lock: (key, ttlMs) => lives(() => store.lock(key, ttlMs))
      }
    }
  }

  async function restarted(tree: Readonly<Record<string, unknown>>, clock: TestClock, service: TokenService, store: Store): Promise<OpenedCredential> {
    const next = await opened(tree, { clock, service, store })
    // locks and marks of the dead run out, its pause ends
    await clock.advance(MINUTE)
    return next
  }

  // Without another way in a token whose fate is unknown takes a person.
  test.each([
    ['password', PASSWORD, /^Bearer/],
    ['refresh_token', REFRESH, /^Bearer|^credential-rejected/]
  ])('never uses a refresh token twice (%s)', async (_name, tree, recovered) => {
    let deaths = 0
    for (let diesAt = 1; diesAt < 60; diesAt++) {
      const clock = testClock()
      const { service, reused } = oneTimeRealm(clock, 86_400)
      const store = memoryStore({ clock })
      await (await opened(tree, { clock, service, store })).bearer()
      await clock.advance(16 * MINUTE)

      const doomed = mortal(store, service.tokenFetch, diesAt)
      const opening = opened(tree, { clock, service: { ...service, tokenFetch: doomed.tokenFetch }, store: doomed.store }).then((one) => one.bearer())
      const outcome = await Promise.race([opening, clock.advance(100).then(() => 'dead')])
      // It got through before its time: every step has been died at.
      if (outcome !== 'dead') break
      deaths += 1

      const next = await restarted(tree, clock, service, store)
      expect(await next.bearer()).toMatch(recovered)
      expect(reused).toEqual([])
    }
    expect(deaths).toBeGreaterThan(8)
  })
})
