import { createHash } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { connect } from '../../sandbox/providers/connect.ts'
import { dinero } from '../../sandbox/providers/dinero.ts'
import { finfo } from '../../sandbox/providers/finfo.ts'
import { arm, FORM, JSON_BODY, MANNERS, openBench, type Bench, type Reply, type Wire } from './sandbox-support.ts'

const MINUTE = 60_000

let bench: Bench
let on: Wire
async function open(...plans: Parameters<typeof openBench>[0] & object): Promise<void> {
  bench = await openBench(plans)
  on = bench.connect()
}
afterEach(() => bench.close())

type Members = Record<string, unknown>

async function token(
  provider: string,
  client: string,
  members: Record<string, string>
): Promise<{ status: number; answer: Members; bearer: string; refresh: string }> {
  const form = new URLSearchParams({ client_id: client, client_secret: `${provider}-secret`, ...members })
  const reply = await on.send('POST', `/${provider}/token`, FORM, form.toString())
  const answer: Members = JSON.parse(reply.body)
  return { status: reply.status, answer, bearer: String(answer['access_token']), refresh: String(answer['refresh_token']) }
}

function call(path: string, bearer: string, options: { method?: string; json?: unknown; headers?: Record<string, string> } = {}): Promise<Reply> {
  const { method = 'GET', json, headers = {} } = options
  return on.send(
    method,
    path,
    { ...MANNERS, Authorization: `Bearer ${bearer}`, ...(json === undefined ? {} : JSON_BODY), ...headers },
    json === undefined ? undefined : JSON.stringify(json)
  )
}

describe('Finfo', () => {
  const login = (password = 'pä ss+&=%') => token('finfo', 'finfo-api', { grant_type: 'password', username: 'finfo-user', password, scope: 'openid' })
  const renew = (refresh: string) => token('finfo', 'finfo-api', { grant_type: 'refresh_token', refresh_token: refresh })

  describe('as a realm usually is', () => {
    beforeEach(() => open(finfo()))

    it('answers a login as Keycloak does', async () => {
      const { answer } = await login()
      expect(answer).toMatchObject({ expires_in: 900, refresh_expires_in: 1800, token_type: 'Bearer', 'not-before-policy': 0, scope: 'openid email profile' })
      expect(Object.keys(answer)).toEqual(expect.arrayContaining(['access_token', 'refresh_token', 'id_token', 'session_state']))
    })

    it('is content with a login and refreshes until the session is at its end, where less and less is left', async () => {
      let held = await login()
      const left: unknown[] = []
      for (let turn = 0; turn < 41; turn++) {
        bench.clock.pass(14.6 * MINUTE)
        held = await renew(held.refresh)
        if (turn > 37) left.push(held.answer['refresh_expires_in'])
      }
      expect(left.map((each) => typeof each === 'number' && each < 1800)).toEqual([false, true, true])
      bench.clock.pass(14.6 * MINUTE)
      expect((await login()).status).toBe(200)
      expect(bench.details()).toEqual([])
    })

    it('notes a new login although a refresh token was good', async () => {
      await login()
      bench.clock.pass(15 * MINUTE)
      await login()
      expect(bench.broken()).toEqual(['FI-20'])
    })

    it('notes a token asked for before the last one was used up', async () => {
      const { refresh } = await login()
      bench.clock.pass(5 * MINUTE)
      await renew(refresh)
      expect(bench.broken()).toEqual(['FI-19'])
    })

    it('notes a refresh token presented after its time', async () => {
      const { refresh } = await login()
      bench.clock.pass(31 * MINUTE)
      const refused = await renew(refresh)
      expect([refused.status, refused.answer['error']]).toEqual([400, 'invalid_grant'])
      expect(bench.broken()).toEqual(['FI-13'])
      expect((await login()).status).toBe(200)
      expect(bench.broken()).toEqual(['FI-13'])
    })

    it('locks out who guesses twice within a second, the right password included', async () => {
      expect((await login('wrong')).status).toBe(401)
      expect((await login('wrong')).status).toBe(401)
      expect((await login()).status).toBe(401)
      bench.clock.pass(MINUTE)
      expect((await login()).status).toBe(200)
    })

    it('answers 204 where there is nothing and notes who asks again at once', async () => {
      const { bearer } = await login()
      const known = await call('/finfo/api/v2.1/articles/12', bearer)
      expect([known.status, JSON.parse(known.body).articles[0].finfoArticleId]).toEqual([200, '12'])
      const unknown = await call('/finfo/api/v2.1/articles/19', bearer)
      expect([unknown.status, unknown.body]).toEqual([204, ''])
      expect(bench.broken()).toEqual([])
      await call('/finfo/api/v2.1/articles/19', bearer)
      expect(bench.broken()).toEqual(['FI-35'])
    })

    it('notes a call within ten seconds of a 429 that says nothing', async () => {
      const { bearer } = await login()
      await arm(on, { provider: 'finfo', kind: 'status', status: 429 })
      await call('/finfo/api/v2.1/articles/1', bearer)
      bench.clock.pass(9000)
      await call('/finfo/api/v2.1/articles/2', bearer)
      expect(bench.broken()).toEqual(['FI-38'])
    })
  })

  it('ends the oldest session where a user has too many', async () => {
    await open(finfo())
    const first = await login()
    for (let more = 0; more < 3; more++) await login()
    bench.clock.pass(15 * MINUTE)
    expect((await renew(first.refresh)).status).toBe(400)
  })

  it('takes a refresh token once, where the realm says so, and voids the session at the second use', async () => {
    await open(finfo({ refresh: { mode: 'one-time', graceMs: 0 } }))
    const first = await login()
    bench.clock.pass(15 * MINUTE)
    const second = await renew(first.refresh)
    expect(second.status).toBe(200)
    expect((await renew(first.refresh)).status).toBe(400)
    expect(bench.broken()).toContain('FI-20')
    expect((await renew(second.refresh)).status).toBe(400)
  })

  it('suspends who misuses the token service', async () => {
    await open(finfo({ suspendAfter: 2 }))
    const { bearer, refresh } = await login()
    expect((await call('/finfo/api/v2.1/articles/1', bearer)).status).toBe(200)
    const second = await renew(refresh)
    await renew(second.refresh)
    expect((await call('/finfo/api/v2.1/articles/2', bearer)).status).toBe(403)
    expect((await login()).status).toBe(403)
  })
})

describe('Dinero', () => {
  const renew = (refresh: string) => token('dinero', 'isv_demo', { grant_type: 'refresh_token', refresh_token: refresh })
  const first = () => renew('dinero-first-refresh-token')

  it('rotates refresh tokens and ends the grant at a second use', async () => {
    await open(dinero())
    const held = await first()
    expect(held.answer).toMatchObject({ expires_in: 3600, token_type: 'Bearer' })
    expect((await first()).status).toBe(400)
    expect(bench.broken()).toEqual(['DI-12'])
    expect((await renew(held.refresh)).status).toBe(400)
  })

  it('forgives a second use within the grace, as after a lost answer', async () => {
    await open(dinero({ refresh: { graceMs: 30_000 } }))
    await arm(on, { provider: 'dinero', kind: 'reset-after-read', match: 'token' })
    await expect(first()).rejects.toThrow(/hang up|ECONNRESET/)
    bench.clock.pass(20_000)
    expect((await first()).status).toBe(200)
    expect(bench.details()).toEqual([])
  })

  it('gives a code for the consent and tokens for the code with its proof', async () => {
    await open(dinero())
    const verifier = 'v'.repeat(43)
    const asked = new URLSearchParams({
      client_id: 'isv_demo',
      response_type: 'code',
      redirect_uri: 'http://127.0.0.1:9/cb',
      scope: 'dineropublicapi:read offline_access',
      state: 's',
      code_challenge: createHash('sha256').update(verifier).digest('base64url'),
      code_challenge_method: 'S256'
    })
    const back = new URL(String((await on.send('GET', `/dinero/authorize?${asked.toString()}`)).headers['location']))
    expect(back.searchParams.get('state')).toBe('s')
    const redeem = (proof: string, code = back.searchParams.get('code') ?? '') =>
      token('dinero', 'isv_demo', { grant_type: 'authorization_code', code, redirect_uri: 'http://127.0.0.1:9/cb', code_verifier: proof })
    expect((await redeem(verifier)).answer).toMatchObject({ scope: 'dineropublicapi:read offline_access' })
    expect((await redeem(verifier)).status).toBe(400)
    const again = new URL(String((await on.send('GET', `/dinero/authorize?${asked.toString()}`)).headers['location']))
    expect((await redeem('guess', again.searchParams.get('code') ?? '')).status).toBe(400)
    const form = await on.send('GET', `/dinero/authorize?${asked.toString()}&response_mode=form_post`)
    expect(form.body).toContain('method="post" action="http://127.0.0.1:9/cb"')
    expect((await on.send('GET', `/dinero/authorize?${asked.toString().replace('127.0.0.1', 'evil.example')}`)).status).toBe(400)
  })

  it('notes scopes that were never approved and a login without proof', async () => {
    await open(dinero())
    await on.send('GET', '/dinero/authorize?client_id=isv_demo&redirect_uri=http://localhost:9/&scope=everything')
    expect(bench.broken()).toEqual(['DI-09', 'RFC7636-4.3'])
  })

  it('allows each organisation a hundred calls a minute, answers 429 without a wait, and notes both', async () => {
    await open(dinero())
    const { bearer } = await first()
    const contacts = (org: number, page: number) => call(`/dinero/api/v1/${org}/contacts?page=${page}`, bearer)
    for (let page = 0; page < 100; page++) await contacts(100_001, page)
    expect((await contacts(100_002, 0)).status).toBe(200)
    expect(bench.broken()).toEqual([])
    const over = await contacts(100_001, 100)
    expect([over.status, over.headers['retry-after'], over.body]).toEqual([429, undefined, 'API calls quota exceeded! maximum admitted 100 per Minute.'])
    expect(bench.broken()).toEqual(['DI-03'])
    bench.clock.pass(59_000)
    await contacts(100_001, 101)
    expect(bench.broken()).toEqual(['DI-03', 'DI-23'])
    expect((await contacts(100_002, 1)).status).toBe(200)
  })

  it('takes a DELETE with a body, by version', async () => {
    await open(dinero())
    const { bearer } = await first()
    const path = '/dinero/api/v1/100001/invoices/inv-1'
    const known = JSON.parse((await call(path, bearer)).body)
    expect(JSON.parse((await call(path, bearer, { method: 'DELETE', json: { Timestamp: 'old' } })).body).code).toBe(58)
    expect((await call(path, bearer, { method: 'DELETE', json: { Timestamp: known.timestamp } })).status).toBe(200)
    expect((await call(path, bearer)).status).toBe(404)
  })

  it('gives the same invoice as JSON or PDF by Accept', async () => {
    await open(dinero())
    const { bearer } = await first()
    const pdf = await call('/dinero/api/v1/100001/invoices/inv-2', bearer, { headers: { Accept: 'application/octet-stream' } })
    const data = await call('/dinero/api/v1/100001/invoices/inv-2', bearer)
    expect([pdf.body.slice(0, 4), JSON.parse(data.body).guid]).toEqual(['%PDF', 'inv-2'])
    expect(bench.broken()).toEqual([])
  })

  it('keeps book of every SMS, notes those abroad and those sent twice', async () => {
    await open(dinero())
    const { bearer } = await first()
    const send = (number: string) =>
      call('/dinero/api/v2/100001/invoices/inv-1/email', bearer, { method: 'POST', json: { SendAsSms: true, SmsReceiverPhoneNumber: number } })
    for (const number of ['12345678', '+45 12 34 56 79', '004512345670']) await send(number)
    expect(bench.broken()).toEqual([])
    await send('+4791234567')
    expect(bench.broken()).toEqual(['DI-17'])
    await send('12345678')
    expect(bench.broken()).toEqual(['DI-17', 'DI-21'])
    const book = JSON.parse((await on.send('GET', '/dinero/sms')).body)
    expect(book).toMatchObject({ count: 5, kroner: 5 })
    expect(JSON.stringify(book)).not.toContain('1234567')
  })

  it('has brown-outs with 480, organisations without Pro, and a limit of 6 MB for files', async () => {
    await open(dinero())
    const { bearer } = await first()
    const entries = async (): Promise<number> => (await call('/dinero/api/v1/100001/ledgeritems', bearer)).status
    expect([await entries(), await entries()]).toEqual([480, 200])
    const basic = await call('/dinero/api/v1/100003/contacts', bearer)
    expect([basic.status, JSON.parse(basic.body).code]).toEqual([403, 90])
    const upload = (size: number) =>
      on.send('POST', '/dinero/api/v1/100001/files', { ...MANNERS, Authorization: `Bearer ${bearer}`, 'Content-Type': 'application/pdf' }, 'x'.repeat(size))
    expect([(await upload(6_000_000)).status, (await upload(6_000_001)).status]).toEqual([201, 413])
  })

  it('notes more than twenty mistakes a minute', async () => {
    await open(dinero())
    const { bearer } = await first()
    for (let page = 0; page < 21; page++) await call(`/dinero/api/v1/100001/contacts?page=${page}&pageSize=5000`, bearer)
    expect(bench.broken()).toEqual(['DI-14'])
  })
})

describe('Connect', () => {
  const machine = () => token('connect', 'connect-demo', { grant_type: 'client_credentials' })
  const user = () => token('connect', 'connect-demo', { grant_type: 'refresh_token', refresh_token: 'connect-first-refresh-token' })
  beforeEach(() => open(connect()))

  it('takes a client token on client paths, a user token elsewhere, and notes a mix-up', async () => {
    const [client, person] = [await machine(), await user()]
    expect(client.answer).toEqual({ access_token: client.bearer, token_type: 'bearer', expires_in: 43_200 })
    const statuses = []
    for (const [path, bearer] of [
      ['/connect/api/v1/client/customer/1', client.bearer],
      ['/connect/api/v1/customer', person.bearer]
    ] as const)
      statuses.push((await call(path, bearer)).status)
    expect([statuses, bench.broken()]).toEqual([[200, 200], []])
    expect((await call('/connect/api/v1/customer', client.bearer)).status).toBe(403)
    expect((await call('/connect/api/v1/client/customer/2', person.bearer)).status).toBe(403)
    expect(bench.details()).toEqual(['MC-02 a client token on a user’s path', 'MC-02 a user’s token on a client path'])
  })

  it('answers XML unless JSON is asked for', async () => {
    const { bearer } = await machine()
    const xml = await call('/connect/api/v1/client/customer/1', bearer, { headers: { Accept: '*/*' } })
    expect([xml.headers['content-type'], xml.body]).toEqual(['application/xml', '<customer number="1"/>'])
    const data = await call('/connect/api/v1/client/customer/1', bearer)
    expect(JSON.parse(data.body)).toMatchObject({ customerNumber: '1', gln: 7_080_001_213_916 })
  })

  it('has two windows at once, says what is left, and turns down what is over', async () => {
    const { bearer } = await machine()
    const coupon = (id: number) => call(`/connect/api/v1/client/coupon/${id}`, bearer)
    expect((await coupon(0)).headers['x-ratelimit-remaining']).toBe('1999')
    for (let id = 1; id < 100; id++) await coupon(id)
    expect(bench.broken()).toEqual([])
    const over = await coupon(100)
    expect([over.status, bench.broken()]).toEqual([429, ['MC-40']])
    expect(Number(over.headers['x-ratelimit-reset'])).toBeGreaterThan(0)
  })

  it('announces the end of an operation with a Sunset in UTC', async () => {
    const { headers } = await call('/connect/api/v1/client/coupon/1', (await machine()).bearer)
    expect(headers).toMatchObject({ deprecation: '@1767225600', sunset: 'Tue, 30 Jun 2099 00:00:00 UTC' })
  })

  it('notes a call to what has been removed', async () => {
    await call('/connect/api/v1/client/legacy', (await machine()).bearer)
    expect(bench.broken()).toEqual(['MC-18'])
  })
})
