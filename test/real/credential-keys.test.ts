import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { copyFileSync, readFileSync } from 'node:fs'
import { decodeProtectedHeader } from 'jose'
import { KeyError } from '../../src/tokens/key-error.ts'
import { assertValidNow, certificateThumbprint, loadKey } from '../../src/tokens/key-material.ts'
import { certificates, type Certificates } from '../support/certificates.ts'
import { requireReal } from '../support/real.ts'
import { opened } from '../support/token-service.ts'

const openssl = requireReal('openssl')

describe.skipIf(openssl === undefined)('a key made with OpenSSL', () => {
  let files: Certificates
  beforeAll(() => {
    files = certificates(openssl ?? '')
  })
  afterAll(() => files.remove())

  const latin1 = (file: string): string => readFileSync(files.path(file), 'latin1')
  function failure(...args: Parameters<typeof loadKey>): string {
    try {
      loadKey(...args)
    } catch (error) {
      if (error instanceof KeyError) return error.message
      throw error
    }
    throw new Error('accepted')
  }

  test.each([
    ['PKCS#8', ['pkcs8', '-topk8', '-nocrypt', '-in', 'client.key', '-out', 'k']],
    ['SEC 1', ['ec', '-in', 'client.key', '-out', 'k']],
    ['PKCS#1', ['genrsa', '-traditional', '-out', 'k', '2048']]
  ])('is read from PEM: %s', (_name, command) => {
    files.openssl(...command)
    expect(loadKey(files.read('k'), undefined, undefined).privateKey.type).toBe('private')
  })

  test.each([
    ['PKCS#8', ['pkcs8', '-topk8', '-in', 'client.key', '-out', 'k', '-passout', 'pass:s3cret']],
    ['SEC 1', ['ec', '-aes256', '-in', 'client.key', '-out', 'k', '-passout', 'pass:s3cret']]
  ])('is read from encrypted PEM with its passphrase: %s', (_name, command) => {
    files.openssl(...command)
    expect(loadKey(files.read('k'), 's3cret', undefined).privateKey.type).toBe('private')
    expect(failure(files.read('k'), undefined, undefined)).toMatch(/needs keyPassphrase/)
    expect(failure(files.read('k'), 'wrong', undefined)).toMatch(/keyPassphrase is wrong/)
  })

  test.each([
    ['as OpenSSL makes it', 1, []],
    ['with AES-128 and SHA-1', 1, ['-keypbe', 'AES-128-CBC', '-certpbe', 'AES-128-CBC', '-macalg', 'sha1']],
    ['with the certificates in the clear', 1, ['-certpbe', 'NONE']],
    ['without any encryption', 1, ['-keypbe', 'NONE', '-certpbe', 'NONE']],
    ['with a chain', 2, ['-certfile', 'ca.crt']]
  ])('is read from PKCS#12 with its certificate: %s', (_name, certificateCount, options) => {
    files.openssl('pkcs12', '-export', '-inkey', 'client.key', '-in', 'client.crt', '-out', 'k.p12', '-passout', 'pass:pässword', ...options)
    const expected = loadKey(files.read('client.key'), undefined, files.read('client.crt'))
    for (const text of [latin1('k.p12'), readFileSync(files.path('k.p12')).toString('base64')]) {
      const key = loadKey(text, 'pässword', undefined)
      expect(key.fingerprint).toBe(expected.fingerprint)
      expect(key.certificates[0]?.fingerprint256).toBe(expected.certificates[0]?.fingerprint256)
      expect(key.certificates).toHaveLength(certificateCount)
    }
  })

  test('is not read from PKCS#12 with a wrong passphrase', () => {
    files.openssl('pkcs12', '-export', '-inkey', 'client.key', '-in', 'client.crt', '-out', 'k.p12', '-passout', 'pass:s3cret')
    for (const passphrase of ['wrong', '', undefined]) expect(failure(latin1('k.p12'), passphrase, undefined)).toMatch(/keyPassphrase is wrong or missing/)
  })

  test('is not read from what is no key, with a word about why', () => {
    expect(failure('hello', undefined, undefined)).toMatch(/neither PEM nor JWK nor PKCS#12/)
    expect(failure('MAAA', undefined, undefined)).toMatch(/neither PEM nor JWK nor PKCS#12/)
    expect(failure('{"kty":"EC"', undefined, undefined)).toMatch(/not JSON/)
    expect(failure('{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}', undefined, undefined)).toMatch(/public JWK/)
    expect(failure('{"kty":"EC","crv":"P-256","x":"AA","y":"AA","d":"AA"}', undefined, undefined)).toMatch(/no usable JWK/)
    expect(failure(files.read('client.crt'), undefined, undefined)).toMatch(/no private key in it/)
    expect(failure(files.read('client.key').replace(/\n.{20}/, '\nAAAAAAAAAAAAAAAAAAAA'), undefined, undefined)).toMatch(/no usable private key/)
    files.openssl('genrsa', '-out', 'weak', '1024')
    expect(failure(files.read('weak'), undefined, undefined)).toMatch(/fewer than 2048 bits/)
  })

  test('is told apart from a certificate of another key, a damaged one and an expired one', () => {
    const key = files.read('client.key')
    expect(failure(key, undefined, files.read('other.crt'))).toBe('certificate does not belong to the key')
    expect(failure(key, undefined, 'hello')).toMatch(/no PEM certificate/)
    expect(failure(key, undefined, '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----')).toMatch(/damaged/)
    const material = loadKey(key, undefined, files.read('client.crt'))
    const day = 86_400_000
    expect(() => assertValidNow(material, undefined, Date.now())).not.toThrow()
    expect(() => assertValidNow(material, undefined, Date.now() + 3 * day)).toThrow(/certificate expired on \d{4}-\d\d-\d\d, replace it/)
    expect(() => assertValidNow(material, undefined, Date.now() - day)).toThrow(/valid from/)
    expect(() => assertValidNow(material, Date.now() - 1, Date.now())).toThrow(/expired/)
  })

  test('names its certificate in the assertion as asked, instead of a key id', async () => {
    const tree = { key: `file:${files.path('client.key')}`, certificate: `file:${files.path('client.crt')}` }
    // the certificate is of today, the test clock is not
    const one = await opened({ ...tree, assertion: { include: ['x5t', 'x5t#S256', 'x5c'] } })
    one.clock.shiftWall(Date.now() + 60_000 - one.clock.wallNow())
    await one.bearer()
    const [own] = loadKey(files.read('client.key'), undefined, files.read('client.crt')).certificates
    if (own === undefined) throw new Error('no certificate')
    expect(decodeProtectedHeader(one.service.asked[0]?.parameters.get('client_assertion') ?? '')).toEqual({
      alg: 'ES256',
      typ: 'JWT',
      x5t: certificateThumbprint(own, 'sha1'),
      'x5t#S256': certificateThumbprint(own, 'sha256'),
      x5c: [own.raw.toString('base64')]
    })
    expect(one.events).toContainEqual({ kind: 'credential-expiry', credential: 'a', expiresAt: own.validToDate.getTime() })
    expect(one.source.status().credentialExpiresAt).toBe(own.validToDate.getTime())
  })

  test('that is replaced together with its certificate ends the token that was bound to them', async () => {
    for (const half of ['key', 'crt']) copyFileSync(files.path(`client.${half}`), files.path(`live.${half}`))
    const one = await opened({ clientAuth: 'tls_client_auth', key: `file:${files.path('live.key')}`, certificate: `file:${files.path('live.crt')}` })
    one.clock.shiftWall(Date.now() + 60_000 - one.clock.wallNow())
    const before = await one.authorize()
    expect(await one.authorize()).toBe(before)
    for (const half of ['key', 'crt']) copyFileSync(files.path(`other.${half}`), files.path(`live.${half}`))
    await one.clock.advance(1000)
    const after = await one.authorize()
    expect(after.fields[1]).toBe('Bearer token-2')
    expect(after.clientCertificate?.id).not.toBe(before.clientCertificate?.id)
    expect(one.service.asked.map((asked) => asked.certificate?.cert)).toEqual([before.clientCertificate?.cert, after.clientCertificate?.cert])
  })

  test('that has expired signs nothing and asks nobody', async () => {
    const one = await opened({ key: `file:${files.path('client.key')}`, certificate: `file:${files.path('client.crt')}` })
    one.clock.shiftWall(Date.now() + 3 * 86_400_000 - one.clock.wallNow())
    await expect(one.authorize()).rejects.toMatchObject({ code: 'credential-rejected', message: expect.stringMatching(/credential a: certificate expired on/) })
    expect(one.service.asked).toHaveLength(0)
  })
})
