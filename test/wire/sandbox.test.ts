import { setTimeout as realSleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { sandboxClock } from '../../sandbox/clock.ts'
import { infoSubscription } from '../../sandbox/providers/info-subscription.ts'
import { startSandbox } from '../../sandbox/server.ts'
import {
  arm,
  assertion,
  FORM,
  INFO,
  infoForm,
  infoHeaders,
  infoToken,
  integrationForm,
  integrationHeaders,
  integrationToken,
  JSON_BODY,
  MANNERS,
  openBench,
  PARTNER,
  SCOPE,
  TENANT,
  wire,
  type Bench,
  type Wire
} from './sandbox-support.ts'

let bench: Bench
let on: Wire
beforeEach(async () => {
  bench = await openBench()
  on = bench.connect()
})
afterEach(() => bench.close())

describe('INFO-Subscription', () => {
  it('answers a token request in the shape of B2C, numbers as numbers and no refresh token', async () => {
    const reply = await on.send('POST', '/info-subscription/token', FORM, infoForm())
    const answer: Record<string, unknown> = JSON.parse(reply.body)
    expect(Object.keys(answer)).toEqual(['access_token', 'token_type', 'not_before', 'expires_in', 'expires_on', 'resource'])
    expect(answer).toMatchObject({ token_type: 'Bearer', expires_in: 3600 })
    expect(Number(answer['expires_on']) - Number(answer['not_before'])).toBe(3600)
    expect(reply.headers['cache-control']).toBe('no-store')
  })

  it('takes the secret by Basic too, form-encoded as RFC 6749 has it', async () => {
    const basic = Buffer.from(`${encodeURIComponent('info-demo')}:${encodeURIComponent('info-secret')}`).toString('base64')
    const form = new URLSearchParams({ grant_type: 'client_credentials', scope: SCOPE }).toString()
    expect((await on.send('POST', '/info-subscription/token', { ...FORM, Authorization: `Basic ${basic}` }, form)).status).toBe(200)
    expect(bench.details()).toEqual([])
  })

  it('refuses a scope it does not know with 400 and a wrong secret with 401', async () => {
    const scope = await on.send('POST', '/info-subscription/token', FORM, infoForm({ scope: 'openid' }))
    expect([scope.status, JSON.parse(scope.body).error]).toEqual([400, 'invalid_scope'])
    const secret = await on.send('POST', '/info-subscription/token', FORM, infoForm({ client_secret: 'guess' }))
    expect([secret.status, JSON.parse(secret.body).error]).toEqual([401, 'invalid_client'])
  })

  it('answers 401 without a body and with every shape of challenge in turn', async () => {
    const token = await infoToken(on)
    await arm(on, { provider: 'info-subscription', kind: 'revoke-token' })
    const challenges = []
    for (let id = 1; id <= 4; id++) {
      const reply = await on.send('GET', `${INFO}/subscribers/${id}`, infoHeaders(token))
      expect([reply.status, reply.body, reply.headers['content-length']]).toEqual([401, '', '0'])
      challenges.push(reply.headers['www-authenticate'])
    }
    expect(challenges[0]).toBe('Bearer error="invalid_token", error_description="The token is expired"')
    expect(challenges[1]).toBeUndefined()
    expect(new Set(challenges).size).toBe(4)
  })

  it('answers 403 without a body for a tenant or an operation the client may not see', async () => {
    const headers = infoHeaders(await infoToken(on))
    const foreign = await on.send('GET', `${INFO}/products`, { ...headers, 'S4-TenantId': '00000000-0000-4000-8000-000000000000' })
    const settings = await on.send('GET', `${INFO}/settings`, headers)
    expect([foreign.status, foreign.body, settings.status, settings.body]).toEqual([403, '', 403, ''])
  })

  it('knows tenants in any case of letters', async () => {
    const reply = await on.send('GET', `${INFO}/products`, { ...infoHeaders(await infoToken(on)), 'S4-TenantId': TENANT.toUpperCase() })
    expect(reply.status).toBe(200)
  })

  it('has two error formats: the old one in chunks, and problem details', async () => {
    const headers = { ...infoHeaders(await infoToken(on)), ...JSON_BODY }
    const old = await on.send('POST', `${INFO}/subscribers`, headers, '{}')
    expect([old.status, JSON.parse(old.body).errors]).toEqual([400, [{ field: 'name', message: 'Navn må fylles ut' }]])
    const modern = await on.send('POST', `${INFO}/orders`, headers, '{}')
    expect([modern.status, modern.headers['content-type'], JSON.parse(modern.body).errors]).toEqual([
      400,
      'application/problem+json',
      { subscriber: ['is required'] }
    ])
  })

  it('takes an order with 202 and shows it first not at all, then under way, then done; Location relative and absolute by turns', async () => {
    const headers = infoHeaders(await infoToken(on))
    const locations = []
    for (const body of ['{"subscriber":1}', '{"subscriber":2}']) {
      const placed = await on.send('POST', `${INFO}/orders`, { ...headers, ...JSON_BODY }, body)
      expect([placed.status, placed.body]).toEqual([202, ''])
      locations.push(String(placed.headers['location']))
    }
    expect(locations[0]).toMatch(/^\/info-subscription\/api\/orders\/o\d+$/)
    expect(locations[1]).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/info-subscription\/api\/orders\/o\d+$/)
    const statuses = []
    for (const wait of [500, 1500, 7000]) {
      bench.clock.pass(wait)
      statuses.push((await on.send('GET', String(locations[0]), headers)).status)
    }
    expect(statuses).toEqual([404, 202, 200])
  })

  it('answers conditionally and says how long an answer is good for', async () => {
    const headers = infoHeaders(await infoToken(on))
    const full = await on.send('GET', `${INFO}/products`, headers)
    expect(full.headers).toMatchObject({ 'cache-control': 'private, max-age=300', vary: 'Accept' })
    const unchanged = await on.send('GET', `${INFO}/products`, { ...headers, 'If-None-Match': `W/${String(full.headers['etag'])}` })
    expect([unchanged.status, unchanged.body, unchanged.headers['etag']]).toEqual([304, '', full.headers['etag']])
    const since = await on.send('GET', `${INFO}/products`, { ...headers, 'If-Modified-Since': String(full.headers['last-modified']) })
    expect(since.status).toBe(304)
    const head = await on.send('HEAD', `${INFO}/products`, headers)
    expect([head.status, head.body, head.headers['content-length']]).toEqual([200, '', String(Buffer.byteLength(full.body))])
  })

  it('changes what was written, and refuses a write on an old version', async () => {
    const reading = infoHeaders(await infoToken(on))
    const headers = { ...reading, ...JSON_BODY }
    const before = await on.send('GET', `${INFO}/subscribers/7`, reading)
    const write = (body: string): ReturnType<Wire['send']> =>
      on.send('PUT', `${INFO}/subscribers/7`, { ...headers, 'If-Match': String(before.headers['etag']) }, body)
    expect((await write('{"name":"A"}')).status).toBe(204)
    expect((await write('{"name":"B"}')).status).toBe(412)
    const after = await on.send('GET', `${INFO}/subscribers/7`, reading)
    expect(JSON.parse(after.body).name).toBe('A')
  })

  it('announces the end of an old version', async () => {
    const reply = await on.send('GET', `${INFO}/v1/invoices/1`, infoHeaders(await infoToken(on)))
    expect(reply.headers).toMatchObject({ 'api-deprecated-versions': '1', deprecation: '@1767225600', sunset: 'Wed, 01 Jun 2099 00:00:00 GMT' })
  })
})

describe('the Integration agreement', () => {
  it('tells where its token service is', async () => {
    const reply = await on.send('GET', '/integration/.well-known/openid-configuration')
    expect(JSON.parse(reply.body)).toMatchObject({ issuer: `${bench.sandbox.url}/integration`, token_endpoint: `${bench.sandbox.url}/integration/token` })
  })

  it('throttles above the agreed volume and says for how long', async () => {
    const headers = integrationHeaders(await integrationToken(bench, on))
    let last = await on.send('DELETE', `${PARTNER}/coupons/0`, headers)
    for (let call = 1; call <= 600; call++) last = await on.send('DELETE', `${PARTNER}/coupons/${call}`, headers)
    expect(last.status).toBe(429)
    expect(Number(last.headers['retry-after'])).toBeGreaterThan(50)
    bench.clock.pass(Number(last.headers['retry-after']) * 1000)
    expect((await on.send('DELETE', `${PARTNER}/coupons/0`, headers)).status).toBe(204)
  })

  it('takes new public keys and never a private one', async () => {
    const pem = bench.keys.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
    expect((await on.send('POST', '/integration/keys', {}, pem)).status).toBe(400)
    const jwk = JSON.stringify({ ...bench.keys.publicKey.export({ format: 'jwk' }), kid: 'mine' })
    expect((await on.send('POST', '/integration/keys', {}, jwk)).body).toBe('{"kid":"mine"}')
    const reply = await on.send('POST', '/integration/token', FORM, integrationForm(assertion(bench, { header: { kid: 'mine' } })))
    expect(reply.status).toBe(200)
  })
})

describe('a fault to order', () => {
  const call = async (token: string): Promise<unknown> => {
    const reply = await on.send('POST', `${PARTNER}/receipts`, { ...integrationHeaders(token), ...JSON_BODY }, JSON.stringify({ at: Math.random() }))
    return reply.status
  }
  const receipts = async (token: string): Promise<unknown> =>
    JSON.parse((await on.send('POST', `${PARTNER}/receipts/search`, { ...integrationHeaders(token), ...JSON_BODY }, '{}')).body).found

  it('answers a status with Retry-After as often as told, then lets calls through', async () => {
    const token = await integrationToken(bench, on)
    await arm(on, { provider: 'integration', kind: 'status', status: 503, retryAfter: 7, times: 2, match: 'POST /receipts' })
    const reply = await on.send('POST', `${PARTNER}/receipts`, { ...integrationHeaders(token), ...JSON_BODY }, '{"n":1}')
    expect([reply.status, reply.headers['retry-after'], reply.headers['content-type']]).toEqual([503, '7', 'application/problem+json'])
    expect([await receipts(token), await call(token), await call(token)]).toEqual([0, 503, 201])
  })

  it('gives Retry-After as a date where wanted', async () => {
    const token = await integrationToken(bench, on)
    await arm(on, { provider: 'integration', kind: 'status', status: 429, retryAfter: 'date:90' })
    const { headers } = await on.send('GET', `${PARTNER}/changes`, integrationHeaders(token))
    expect(Date.parse(String(headers['retry-after'])) - Date.parse(String(headers['date']))).toBe(90_000)
  })

  it('resets before or after the operation was carried out', async () => {
    const token = await integrationToken(bench, on)
    for (const [kind, done] of [
      ['reset-before-header', 0],
      ['reset-after-read', 1]
    ] as const) {
      await arm(on, { provider: 'integration', kind, match: 'POST /receipts' })
      await expect(call(token)).rejects.toThrow(/ECONNRESET|hang up/)
      expect(await receipts(token)).toBe(done)
    }
  })

  it('sends half an answer, garbage, or an answer drop by drop', async () => {
    const headers = integrationHeaders(await integrationToken(bench, on))
    await arm(on, { provider: 'integration', kind: 'truncate' })
    await expect(on.send('GET', `${PARTNER}/campaigns`, headers)).rejects.toThrow(/aborted|ECONNRESET/)
    await arm(on, { provider: 'integration', kind: 'garbage' })
    await expect(on.send('GET', `${PARTNER}/changes?a`, headers)).rejects.toThrow(/Parse Error/)
    await arm(on, { provider: 'integration', kind: 'slow-body', delay: 0 })
    const dripping = on.send('GET', `${PARTNER}/changes?b`, headers)
    while (await Promise.race([dripping.then(() => false), realSleep(2, true)])) bench.clock.pass(1)
    expect((await dripping).body).toBe('{"changes":[],"next":"w1"}')
  })

  it('never answers, notes that nobody hung up in time, and forgives who did', async () => {
    const headers = integrationHeaders(await integrationToken(bench, on))
    await arm(on, { provider: 'integration', kind: 'hang', times: 2 })
    const patient = bench.connect()
    const hung = patient.send('GET', `${PARTNER}/changes`, headers)
    while (bench.clock.pending() === 0) await realSleep(2)
    bench.clock.pass(119_000)
    expect(bench.broken()).toEqual([])
    bench.clock.pass(2000)
    expect(bench.broken()).toEqual(['IA-41'])
    patient.close()
    await expect(hung).rejects.toThrow(/hang up|ECONNRESET/)
  })

  it('strikes only the calls it matches', async () => {
    const headers = integrationHeaders(await integrationToken(bench, on))
    await arm(on, { provider: 'integration', kind: 'status', status: 418, times: 'always', match: 'GET /receipts/*' })
    const statusOf = async (path: string): Promise<number> => (await on.send('GET', `${PARTNER}${path}`, headers)).status
    expect([await statusOf('/changes'), await statusOf('/receipts/r1'), await statusOf('/receipts/r2')]).toEqual([200, 418, 418])
    await on.send('DELETE', '/faults')
    expect(await statusOf('/receipts/r1')).toBe(200)
  })

  it('reaches the token service by name, with any body', async () => {
    await arm(on, { provider: 'info-subscription', kind: 'status', match: 'token', status: 200, body: { access_token: 'x', expires_in: '3600' } })
    expect((await on.send('POST', '/info-subscription/token', FORM, infoForm())).body).toBe('{"access_token":"x","expires_in":"3600"}')
    expect((await on.send('POST', '/info-subscription/token', FORM, infoForm())).status).toBe(200)
  })

  it.each([
    ['not JSON', 'nonsense'],
    ['an unknown provider', '{"provider":"x","kind":"hang"}'],
    ['an unknown kind', '{"provider":"integration","kind":"explode"}'],
    ['an unknown member', '{"provider":"integration","kind":"hang","tiems":2}'],
    ['a status out of range', '{"provider":"integration","kind":"status","status":99}'],
    ['a number that is none', '{"provider":"integration","kind":"hang","times":"twice"}']
  ])('is refused with a reason when it is %s', async (_what, body) => {
    const reply = await on.send('POST', '/faults', JSON_BODY, body)
    expect(reply.status).toBe(400)
    expect(JSON.parse(reply.body).error).not.toBe('')
    expect((await on.send('GET', '/faults')).body).toBe('[]')
  })
})

describe('the ledger', () => {
  it('counts what arrived, and starts afresh on DELETE while tokens stay valid', async () => {
    const headers = integrationHeaders(await integrationToken(bench, on))
    await on.send('GET', `${PARTNER}/nope`, headers)
    const before = JSON.parse((await on.send('GET', '/ledger')).body)
    expect(before.violations).toMatchObject([{ rule: 'IA-51', severity: 'S1', provider: 'integration', client: 'integration-demo' }])
    expect(before.counts.integration).toMatchObject({ tokenRequests: 1, tokensIssued: 1, apiCalls: 1, unanswered: 0, answers: { 404: 1 } })
    expect((await on.send('DELETE', '/ledger')).status).toBe(204)
    expect(JSON.parse((await on.send('GET', '/ledger')).body)).toEqual({ violations: [], dropped: 0, counts: {} })
    expect((await on.send('GET', `${PARTNER}/changes`, headers)).status).toBe(200)
  })

  it('never holds a secret, nor does the journal', async () => {
    const token = await infoToken(on)
    await on.send('POST', '/info-subscription/token?client_secret=info-secret', FORM, infoForm())
    await on.send('GET', `${INFO}/products?access_token=${token}`, { ...MANNERS, Cookie: 'canary' })
    await on.send('POST', '/info-subscription/token', FORM, infoForm({ client_secret: 'canary' }))
    const written = (await on.send('GET', '/ledger')).body + (await on.send('GET', '/journal')).body
    expect(written).toContain('IS-10')
    for (const secret of [token, 'info-secret', 'canary']) expect(written).not.toContain(secret)
  })

  it('counts in provider time: at speed 600 ten seconds are over in a sixtieth of one', async () => {
    let realMs = 0
    const fast = await startSandbox({ port: 0, clock: sandboxClock(600, () => realMs), providers: [infoSubscription()] })
    const quick = wire(fast.port)
    const token = await infoToken(quick)
    await arm(quick, { provider: 'info-subscription', kind: 'status', status: 500, times: 2 })
    const ask = async (): Promise<number> => (await quick.send('GET', `${INFO}/orders/none`, infoHeaders(token))).status
    const seen = [await ask()]
    realMs += 10_000 / 600
    seen.push(await ask())
    seen.push(await ask())
    const { violations } = JSON.parse((await quick.send('GET', '/ledger')).body)
    quick.close()
    await fast.close()
    expect(seen).toEqual([500, 500, 404])
    expect(violations.map((violation: { rule: string }) => violation.rule)).toEqual(['IA-35'])
  })
})
