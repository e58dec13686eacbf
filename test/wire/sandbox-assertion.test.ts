import { createPrivateKey } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { makeKeyPair } from '../../src/tokens/keys/key-pair.ts'
import { assertion, FORM, integrationForm, openBench, type Bench, type Wire } from './sandbox-support.ts'

// the public half of a key that nobody has any more
const CERTIFICATE_OF_731_DAYS = `-----BEGIN CERTIFICATE-----
MIIBeTCCAR+gAwIBAgIUfh1sctpuebSAsSzvqua6CRpOD0UwCgYIKoZIzj0EAwIw
EjEQMA4GA1UEAwwHcGFydG5lcjAeFw0yNjExMjgyMTEyNTNaFw0yODExMjgyMTEy
NTNaMBIxEDAOBgNVBAMMB3BhcnRuZXIwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AAQrBd569drkaNKnDDQaGbK1F05LKpepx2IDcLgyLIL8bTvqidf3i3iNeC5qlX9j
zvFzMkgOJMng8k/I5ttGrBqjo1MwUTAdBgNVHQ4EFgQUfvYtie22/hw4FMJLtu8s
BENNUlgwHwYDVR0jBBgwFoAUfvYtie22/hw4FMJLtu8sBENNUlgwDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEAirveALD6nhuzp6NeWAdgPSjLr314
3Jvranmmgj2JCjQCIBRH3PcwCq2NXimWtshpnEBYQFhOCwX7G6wZWdz+VONK
-----END CERTIFICATE-----`

let bench: Bench
let on: Wire
beforeEach(async () => {
  bench = await openBench()
  on = bench.connect()
})
afterEach(() => bench.close())

describe('an assertion is refused and noted when', () => {
  const other = () => openBench()
  it.each([
    ['its audience is the token URL', () => ({ claims: { aud: `http://127.0.0.1:${bench.sandbox.port}/integration/token` } })],
    ['its audience is a list', () => ({ claims: { aud: [`http://127.0.0.1:${bench.sandbox.port}/integration`] } })],
    ['it lives longer than two minutes', () => ({ claims: { exp: Math.floor(Date.now() / 1000) + 300 } })],
    ['it has expired', () => ({ claims: { iat: Math.floor(Date.now() / 1000) - 8, exp: Math.floor(Date.now() / 1000) - 2 } })],
    ['its clock is wrong', () => ({ claims: { iat: Math.floor(Date.now() / 1000) + 60, exp: Math.floor(Date.now() / 1000) + 120 } })],
    ['it has no jti', () => ({ claims: { jti: undefined } })],
    ['it has no iat', () => ({ claims: { iat: undefined } })],
    ['issuer and subject differ', () => ({ claims: { sub: 'somebody' } })],
    ['it speaks for somebody unknown', () => ({ claims: { iss: 'nobody', sub: 'nobody' } })],
    ['its key is not registered', () => ({ header: { kid: 'other' } })],
    ['it names no key', () => ({ header: { kid: undefined } })],
    ['it is not signed', () => ({ header: { alg: 'none' } })]
  ])('%s', async (_why, changes) => {
    const reply = await on.send('POST', '/integration/token', FORM, integrationForm(assertion(bench, changes())))
    expect(reply.status).toBe(401)
    expect(reply.body).toContain('invalid_client')
    expect(bench.broken()).toEqual(['IA-10'])
  })

  it('somebody else signed it', async () => {
    const stranger = await other()
    const reply = await on.send('POST', '/integration/token', FORM, integrationForm(assertion(bench, { key: stranger.keys.privateKey })))
    await stranger.close()
    expect(reply.status).toBe(401)
    expect(bench.broken()).toEqual(['IA-10'])
  })

  it('everything is wrong with it: each fault is named', async () => {
    const old = Math.floor(Date.now() / 1000) - 900
    const claims = { aud: 'https://elsewhere.example', iat: old, exp: old + 300, jti: 'used-up-jti' }
    for (let sent = 0; sent < 2; sent++) await on.send('POST', '/integration/token', FORM, integrationForm(assertion(bench, { claims })))
    expect([...new Set(bench.details().map((detail) => detail.replaceAll(/-?\d+ s/g, 'N s')))].toSorted()).toEqual([
      'IA-10 aud is not exactly this token service',
      'IA-10 iat is N s off',
      'IA-10 it has expired',
      'IA-10 it lives N s, N s at most',
      'IA-10 jti was used before'
    ])
  })

  it('somebody used it before', async () => {
    const jwt = assertion(bench)
    expect((await on.send('POST', '/integration/token', FORM, integrationForm(jwt))).status).toBe(200)
    bench.clock.pass(3_000_000)
    expect((await on.send('POST', '/integration/token', FORM, integrationForm(jwt))).status).toBe(401)
    expect(bench.details()).toEqual(['IA-10 jti was used before'])
  })

  it('its key has been locked', async () => {
    const kid = /"kid":"([^"]+)"/.exec(Buffer.from(assertion(bench).split('.')[0] ?? '', 'base64url').toString())?.[1]
    expect((await on.send('DELETE', `/integration/keys/${kid}`)).status).toBe(204)
    expect((await on.send('POST', '/integration/token', FORM, integrationForm(assertion(bench)))).status).toBe(401)
  })
})

describe('the ledger catches a partner that', () => {
  it('hands in the private half of its key', async () => {
    await on.send('POST', '/integration/keys', {}, JSON.stringify(bench.keys.privateKey.export({ format: 'jwk' })))
    expect(bench.broken()).toEqual(['IA-04'])
  })

  it('hands in a certificate for more than two years', async () => {
    const { publicHalf } = await makeKeyPair({ alg: 'ES256', name: 'partner', days: 730, now: Date.now() })
    expect((await on.send('POST', '/integration/keys', {}, publicHalf.certificatePem)).status).toBe(201)
    expect(bench.broken()).toEqual([])
    expect((await on.send('POST', '/integration/keys', {}, CERTIFICATE_OF_731_DAYS)).status).toBe(400)
    expect(bench.broken()).toEqual(['IA-09'])
  })

  it('goes on signing after its certificate has expired', async () => {
    const { publicHalf, privatePem } = await makeKeyPair({ alg: 'ES256', name: 'partner', days: 30, now: Date.now() - 31 * 86_400_000 })
    await on.send('POST', '/integration/keys', {}, publicHalf.certificatePem)
    const jwt = assertion(bench, { header: { kid: publicHalf.kid }, key: createPrivateKey(privatePem.reveal()) })
    expect((await on.send('POST', '/integration/token', FORM, integrationForm(jwt))).status).toBe(401)
    expect(bench.broken()).toEqual(['IA-06'])
  })
})
