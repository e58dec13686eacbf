import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { memoryStore } from '../../../src/state/memory.ts'
import type { Store } from '../../../src/state/store.ts'
import { login, type BrowserReply, type LoginWish } from '../../../src/tokens/login.ts'
import { SignInError } from '../../../src/tokens/sign-in.ts'
import { testClock, type TestClock } from '../../support/clock.ts'
import { reports } from '../../support/policy-call.ts'
import { attempt, credential, issued, json, opened, tokenService, type Asked, type TokenService } from '../../support/token-service.ts'

const MINUTE = 60_000
const ISSUER = 'http://127.0.0.1:9/'
const PERSON = {
  grant: 'refresh_token',
  tokenUrl: 'http://127.0.0.1:9/token',
  issuer: ISSUER,
  authorizationUrl: `${ISSUER}authorize?tenant=1`,
  clientAuth: 'client_secret_post',
  scope: 'read offline_access'
}

type Setting = { clock: TestClock; store: Store; service: TokenService }

function setting(): Setting {
  const clock = testClock()
  const service = tokenService(clock)
  service.answer = (_asked, count) => issued(`token-${count}`, { refresh_token: `refresh-${count}`, expires_in: 600 })
  return { clock, store: memoryStore({ clock }), service }
}

/** A sign-in that waits for its browser, without sockets: `comeBack` is the browser. */
async function waiting(tree: Readonly<Record<string, unknown>> = PERSON, { clock, store, service }: Setting = setting(), wish: Partial<LoginWish> = {}) {
  const shown = Promise.withResolvers<URL>()
  const turnedAway: string[] = []
  let receive: ((response: URLSearchParams) => Promise<BrowserReply>) | undefined
  let isClosed = false
  const outcome = login(
    'a',
    credential(tree),
    { timeoutMs: 5 * MINUTE, ...wish },
    {
      clock,
      random: () => 0,
      report: reports().report,
      store,
      version: '1.2.3',
      tokenFetch: service.tokenFetch,
      show: (url) => shown.resolve(new URL(url)),
      turnedAway: (why) => void turnedAway.push(why),
      async openRedirect(uri, port, take) {
        receive = take
        return { uri: uri.replace('127.0.0.1', `127.0.0.1:${port ?? 50_000}`), close: async () => void (isClosed = true) }
      }
    }
  ).then(
    () => 'signed in',
    (error: unknown) => (error instanceof SignInError ? error.message : String(error))
  )
  const url = await Promise.race([shown.promise, outcome.then(() => new URL('about:blank'))])
  return {
    url,
    outcome,
    turnedAway,
    isClosed: () => isClosed,
    state: url.searchParams.get('state') ?? '',
    async comeBack(response: Readonly<Record<string, string>> | URLSearchParams): Promise<BrowserReply | undefined> {
      const reply = receive?.(new URLSearchParams(response))
      await clock.advance(200)
      return reply
    },
    comeBackWell() {
      return this.comeBack({ code: 'code-1', state: this.state, iss: ISSUER })
    }
  }
}

describe('the address a person is sent to', () => {
  test('asks for a code with PKCE, a state and the scope, and comes back to where we listen', async () => {
    const { url } = await waiting({ ...PERSON, responseMode: 'form_post', authorizationParams: { prompt: 'consent', response_type: 'token', state: 'fixed' } })
    expect(`${url.origin}${url.pathname}`).toBe(`${ISSUER}authorize`)
    expect(Object.fromEntries(url.searchParams)).toEqual({
      tenant: '1',
      prompt: 'consent',
      response_type: 'code',
      client_id: 'client-1',
      redirect_uri: 'http://127.0.0.1:50000/callback',
      scope: 'read offline_access',
      response_mode: 'form_post',
      state: expect.stringMatching(/^[\w-]{43}$/),
      code_challenge: expect.stringMatching(/^[\w-]{43}$/),
      code_challenge_method: 'S256'
    })
  })

  test('is another one every time', async () => {
    const [one, other] = [await waiting(), await waiting()]
    for (const name of ['state', 'code_challenge']) expect(one.url.searchParams.get(name)).not.toBe(other.url.searchParams.get(name))
  })

  test('is found by discovery where only the issuer is known', async () => {
    const shared = setting()
    const metadata = { issuer: ISSUER, token_endpoint: `${ISSUER}token`, authorization_endpoint: `${ISSUER}go` }
    shared.service.answer = () => json(200, metadata)
    const { url } = await waiting({ ...PERSON, tokenUrl: undefined, authorizationUrl: undefined }, shared)
    expect(`${url.origin}${url.pathname}`).toBe(`${ISSUER}go`)
  })
})

describe('a person who signs in', () => {
  test('leaves a token and a refresh token where the manager of the credential takes them up', async () => {
    const shared = setting()
    const one = await waiting(PERSON, shared)
    expect(await one.comeBackWell()).toEqual({ status: 200, text: 'Signed in. You may close this window.' })
    expect(await one.outcome).toBe('signed in')
    expect(one.isClosed()).toBe(true)
    const asked = shared.service.asked[0]?.parameters ?? new URLSearchParams()
    expect(Object.fromEntries(asked)).toEqual({
      grant_type: 'authorization_code',
      code: 'code-1',
      redirect_uri: 'http://127.0.0.1:50000/callback',
      code_verifier: expect.stringMatching(/^[\w-]{43}$/),
      client_id: 'client-1',
      client_secret: 'client-secret-1'
    })
    const challenge = createHash('sha256')
      .update(asked.get('code_verifier') ?? '')
      .digest('base64url')
    expect(one.url.searchParams.get('code_challenge')).toBe(challenge)

    const sidecar = await opened(PERSON, shared)
    expect(await sidecar.bearer()).toBe('Bearer token-1')
    expect(shared.service.asked).toHaveLength(1)
    await shared.clock.advance(11 * MINUTE)
    expect(await sidecar.bearer()).toBe('Bearer token-2')
    expect(shared.service.asked[1]?.parameters.get('refresh_token')).toBe('refresh-1')
  })

  test('ends the latch of a running sidecar, which goes on by itself', async () => {
    const shared = setting()
    const sidecar = await opened(PERSON, shared)
    expect(await sidecar.bearer()).toBe('credential-rejected')
    expect(shared.service.asked).toEqual([])
    const one = await waiting(PERSON, shared)
    await one.comeBackWell()
    expect(await one.outcome).toBe('signed in')
    await shared.clock.advance(5_000)
    expect(await sidecar.bearer()).toBe('Bearer token-1')
    expect(shared.service.asked).toHaveLength(1)
  })

  test('is newer than a first refresh token in the config', async () => {
    const shared = setting()
    const tree = { ...PERSON, refreshToken: 'first-refresh' }
    const one = await waiting(tree, shared)
    await one.comeBackWell()
    const sidecar = await opened(tree, shared)
    await shared.clock.advance(11 * MINUTE)
    await sidecar.bearer()
    expect(shared.service.asked.map((asked) => asked.parameters.get('refresh_token'))).toEqual([null, 'refresh-1'])
  })

  test('waits for the renewal of a running sidecar, so that neither writes over the other', async () => {
    const shared = setting()
    const before = await waiting(PERSON, shared)
    await before.comeBackWell()
    const sidecar = await opened(PERSON, shared)
    await sidecar.bearer()
    await shared.clock.advance(11 * MINUTE)
    const renewed = Promise.withResolvers<void>()
    const { answer } = shared.service
    shared.service.answer = async (asked, count) => {
      if (asked.parameters.get('grant_type') === 'refresh_token') await renewed.promise
      return answer(asked, count)
    }
    const renewal = sidecar.bearer()
    await shared.clock.advance(0)
    const one = await waiting(PERSON, shared)
    const reply = one.comeBackWell()
    await shared.clock.advance(0)
    expect(shared.service.asked.map((asked) => asked.parameters.get('grant_type'))).toEqual(['authorization_code', 'refresh_token'])
    renewed.resolve()
    expect(await renewal).toBe('Bearer token-2')
    await shared.clock.advance(1_000)
    expect((await reply)?.status).toBe(200)
    await shared.clock.advance(11 * MINUTE)
    expect(await sidecar.bearer()).toBe('Bearer token-4')
    expect(shared.service.asked.at(-1)?.parameters.get('refresh_token')).toBe('refresh-3')
  })

  test('signs in for one key of many where the credential has a token per key', async () => {
    const shared = setting()
    const tree = { ...PERSON, perKey: 'path[0]', variants: { '100001': { scope: 'org-1 offline_access' }, '100002': {} } }
    const one = await waiting(tree, shared, { key: '100001' })
    expect(one.url.searchParams.get('scope')).toBe('org-1 offline_access')
    await one.comeBackWell()
    const sidecar = await opened(tree, shared)
    expect(await sidecar.bearer('/100001/invoices')).toBe('Bearer token-1')
    expect(await sidecar.bearer('/100002/invoices')).toBe('credential-rejected')
  })

  test('binds the tokens to a key of ours that the manager has too', async () => {
    const shared = setting()
    shared.service.answer = (_asked, count) => issued(`token-${count}`, { token_type: 'DPoP', refresh_token: `refresh-${count}`, expires_in: 600 })
    const tree = { ...PERSON, dpop: true }
    const one = await waiting(tree, shared)
    await one.comeBackWell()
    expect(await one.outcome).toBe('signed in')
    const sidecar = await opened(tree, shared)
    const { fields } = await sidecar.authorize()
    await shared.clock.advance(11 * MINUTE)
    await sidecar.authorize()
    const keys = [shared.service.asked[0]?.headers['dpop'], fields[3], shared.service.asked[1]?.headers['dpop']].map(keyOf)
    expect(keys[0]).toMatchObject({ kty: 'EC' })
    expect(keys).toEqual([keys[0], keys[0], keys[0]])
  })

  test('leaves nothing readable in the state', async () => {
    const shared = setting()
    const one = await waiting(PERSON, shared)
    await one.comeBackWell()
    for (const key of await shared.store.keys('')) {
      expect(key + ((await shared.store.get(key))?.toString('latin1') ?? '')).not.toMatch(/token-1|refresh-1|code-1|client-secret-1/)
    }
  })
})

describe('what is not the answer to this sign-in is turned away, and the sign-in goes on', () => {
  test.each<[string, (state: string) => URLSearchParams, string]>([
    ['another state', () => new URLSearchParams({ code: 'x', state: 'guessed', iss: ISSUER }), 'its state is not that of this sign-in'],
    ['no state', () => new URLSearchParams({ code: 'x', iss: ISSUER }), 'it has no state'],
    ['nothing at all', () => new URLSearchParams(), 'it has no state'],
    ['an error with another state', () => new URLSearchParams({ error: 'access_denied', state: 'guessed' }), 'its state is not that of this sign-in'],
    [
      'two states',
      (state) =>
        new URLSearchParams([
          ['code', 'x'],
          ['state', state],
          ['state', 'guessed']
        ]),
      'its state is not that of this sign-in'
    ],
    ['another issuer', (state) => new URLSearchParams({ code: 'x', state, iss: 'https://attacker.example/' }), 'its issuer is not that of the credential'],
    ['tokens instead of a code', (state) => new URLSearchParams({ id_token: 'x', state, iss: ISSUER }), 'it is not what was asked for']
  ])('%s', async (_name, response, why) => {
    const shared = setting()
    const one = await waiting(PERSON, shared)
    expect((await one.comeBack(response(one.state)))?.status).toBe(400)
    expect(one.turnedAway).toEqual([why])
    expect(shared.service.asked).toEqual([])
    expect((await one.comeBackWell())?.status).toBe(200)
    expect(await one.outcome).toBe('signed in')
  })

  test('no issuer, where the service says of itself that it names it', async () => {
    const shared = setting()
    const metadata = {
      issuer: ISSUER,
      token_endpoint: `${ISSUER}token`,
      authorization_endpoint: `${ISSUER}go`,
      authorization_response_iss_parameter_supported: true
    }
    const { answer } = shared.service
    shared.service.answer = (asked, count) => (asked.method === 'GET' ? json(200, metadata) : answer(asked, count))
    const one = await waiting({ ...PERSON, tokenUrl: undefined, authorizationUrl: undefined }, shared)
    expect((await one.comeBack({ code: 'x', state: one.state }))?.status).toBe(400)
    expect(one.turnedAway).toEqual(['it does not name its issuer'])
    expect((await one.comeBackWell())?.status).toBe(200)
  })

  test('but an issuer nobody has configured proves nothing either way', async () => {
    const one = await waiting({ ...PERSON, issuer: undefined })
    expect((await one.comeBack({ code: 'code-1', state: one.state, iss: 'https://whoever.example/' }))?.status).toBe(200)
  })

  test('and a second answer while the first is worked on, or after it, changes nothing', async () => {
    const shared = setting()
    const held = Promise.withResolvers<void>()
    const { answer } = shared.service
    shared.service.answer = async (asked, count) => {
      await held.promise
      return answer(asked, count)
    }
    const one = await waiting(PERSON, shared)
    const first = one.comeBackWell()
    await shared.clock.advance(0)
    expect((await one.comeBackWell())?.status).toBe(409)
    held.resolve()
    expect((await first)?.status).toBe(200)
    expect((await one.comeBackWell())?.status).toBe(409)
    expect(shared.service.asked).toHaveLength(1)
  })
})

describe('a sign-in ends with a clear word', () => {
  test.each<[string, Readonly<Record<string, string>>, RegExp]>([
    ['the person declines', { error: 'access_denied' }, /^the sign-in was declined: access_denied$/],
    ['the service objects', { error: 'invalid_scope', error_description: 'not\r\nyours' }, /^the sign-in was refused: invalid_scope not yours$/],
    ['there is no code', {}, /^the browser brought no code back$/],
    ['the code is empty', { code: '' }, /^the browser brought no code back$/]
  ])('when %s', async (_name, response, message) => {
    const shared = setting()
    const one = await waiting(PERSON, shared)
    expect(await one.comeBack({ ...response, state: one.state, iss: ISSUER })).toEqual({ status: 400, text: 'This did not work; the terminal tells why.' })
    expect(await one.outcome).toMatch(message)
    expect([one.isClosed(), shared.service.asked]).toEqual([true, []])
  })

  test.each<[string, (asked: Asked) => ReturnType<TokenService['answer']>, RegExp]>([
    ['no refresh token is given', () => issued('token-1'), /^the token service gave no refresh token: scope may have to name offline_access/],
    [
      'the code is refused, without repeating it',
      (asked) =>
        json(400, { error: 'invalid_grant', error_description: `no such code ${asked.parameters.get('code')} ${asked.parameters.get('code_verifier')}` }),
      /^the token service gave no token: it answered invalid_grant \(400 invalid_grant: no such code \[secret\] \[secret\]\)$/
    ],
    [
      'a page comes instead of a token',
      () => ({ status: 200, fields: ['content-type', 'text/html'], text: '<html>' }),
      /^the token service gave no token: it answered with 200 text\/html/
    ]
  ])('when %s', async (_name, answer, message) => {
    const shared = setting()
    shared.service.answer = answer
    const one = await waiting(PERSON, shared)
    expect((await one.comeBackWell())?.status).toBe(400)
    expect(await one.outcome).toMatch(message)
    expect(await shared.store.keys('')).toEqual([])
  })

  test('when nobody signs in', async () => {
    const shared = setting()
    const one = await waiting(PERSON, shared, { timeoutMs: 90_000 })
    await one.comeBack({ state: 'guessed' })
    await shared.clock.advance(90_000)
    expect(await one.outcome).toBe('nobody signed in within 90 seconds')
    expect(one.isClosed()).toBe(true)
    expect((await one.comeBackWell())?.status).toBe(200)
    expect(await one.outcome).toBe('nobody signed in within 90 seconds')
  })

  test.each<[string, Readonly<Record<string, unknown>>, Partial<LoginWish>, RegExp]>([
    ['another grant', { grant: 'client_credentials' }, {}, /^credential a has grant client_credentials: only refresh_token takes a sign-in$/],
    ['nowhere to go', { ...PERSON, authorizationUrl: undefined }, {}, /^credential a needs authorizationUrl/],
    ['a token per key and no key', { ...PERSON, perKey: 'path[0]' }, {}, /^credential a has a token per path\[0\]: say with --key whose$/],
    ['a key nobody listed', { ...PERSON, perKey: 'path[0]', variants: { '1': {} } }, { key: '2' }, /^credential a has no variant 2/],
    ['a key for nothing', PERSON, { key: '1' }, /^credential a has no perKey, so it takes no key$/]
  ])('when there is %s', async (_name, tree, wish, message) => {
    const one = await waiting(tree, setting(), wish)
    expect(await one.outcome).toMatch(message)
    expect(one.isClosed()).toBe(true)
  })

  test('when the issuer’s metadata are those of another', async () => {
    const shared = setting()
    shared.service.answer = () => json(200, { issuer: 'https://other.example/', token_endpoint: 'https://other.example/token' })
    const one = await waiting({ ...PERSON, tokenUrl: undefined, authorizationUrl: undefined }, shared)
    expect(await one.outcome).toBe('the token service cannot be found: its metadata are those of another issuer')
  })
})

test('a credential that nobody has signed in for names the command', async () => {
  const sidecar = await opened(PERSON, setting())
  await expect((async () => sidecar.source.authorize(attempt(), new AbortController().signal))()).rejects.toMatchObject({
    message: expect.stringMatching(/sign in again with attache login a$/)
  })
})

function keyOf(proof: string | undefined): unknown {
  return JSON.parse(Buffer.from((proof ?? '').split('.')[0] ?? '', 'base64url').toString()).jwk
}
