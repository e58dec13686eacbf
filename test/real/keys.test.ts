import { execFileSync } from 'node:child_process'
import { createPrivateKey } from 'node:crypto'
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { importJWK, SignJWT, jwtVerify, importPKCS8 } from 'jose'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { announcement } from '../../src/cli/keys-print.ts'
import type { KeyAlgorithm } from '../../src/tokens/keys/key-record.ts'
import { firstKey } from '../../src/tokens/keys/rotation.ts'
import { attache } from '../support/command-line.ts'
import { requireReal } from '../support/real.ts'

const openssl = requireReal('openssl')
const PRIVATE_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k']

let folder: string
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'attache-keys-'))))
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const active = (file: string): string => join(folder, 'keys/partner/active', file)

/** Makes a key and gives what `attache keys new` prints of it. */
async function printed(alg: KeyAlgorithm, days = 365): Promise<string> {
  const { folder: made, publicHalf } = await firstKey(join(folder, 'keys'), { name: 'partner', alg, days, now: Date.now() })
  return announcement('active', made, publicHalf)
}

/** The block of `out` that openssl is to judge. */
function pem(out: string, label: string): string {
  return new RegExp(`-----BEGIN ${label}-----[^-]+-----END ${label}-----\n`).exec(out)?.[0] ?? `no ${label}`
}

function jwkIn(out: string): Record<string, unknown> {
  const jwk: unknown = JSON.parse(/^\{\n[^]*?^\}$/m.exec(out)?.[0] ?? '')
  return { ...(jwk as object) }
}

function judge(args: string[], input: string): string {
  return execFileSync(openssl ?? '', args, { input, stdio: ['pipe', 'pipe', 'pipe'] }).toString()
}

describe.skipIf(openssl === undefined)('attache keys new, judged by openssl', () => {
  for (const [alg, about] of [
    ['RS256', /Public-Key: \(3072 bit\)/],
    ['PS256', /Public-Key: \(3072 bit\)/],
    ['PS512', /Public-Key: \(3072 bit\)/],
    ['ES256', /ASN1 OID: prime256v1/],
    ['ES384', /ASN1 OID: secp384r1/],
    ['ES512', /ASN1 OID: secp521r1/]
  ] as const) {
    test(`${alg}: certificate, request, public key and private key belong together and verify`, async () => {
      const out = await printed(alg, 730)
      const certificate = pem(out, 'CERTIFICATE')
      writeFileSync(join(folder, 'crt.pem'), certificate)

      const described = judge(['x509', '-noout', '-text'], certificate)
      expect(described).toMatch(about)
      expect(described).toContain('Subject: CN = partner')
      expect(described).toMatch(/CA:FALSE/)
      expect(described).toMatch(/Digital Signature/)
      expect(judge(['verify', '-purpose', 'sslclient', '-CAfile', join(folder, 'crt.pem')], certificate)).toContain('OK')
      expect(judge(['req', '-noout', '-subject', '-verify'], pem(out, 'CERTIFICATE REQUEST'))).toContain('CN = partner')

      const publicPem = pem(out, 'PUBLIC KEY')
      expect(judge(['pkey', '-pubin', '-pubout'], publicPem)).toBe(publicPem)
      expect(judge(['x509', '-noout', '-pubkey'], certificate)).toBe(publicPem)
      expect(judge(['req', '-noout', '-pubkey'], pem(out, 'CERTIFICATE REQUEST'))).toBe(publicPem)
      expect(judge(['pkey', '-pubout', '-in', active('key.pem')], '')).toBe(publicPem)
      expect(judge(['pkey', '-check', '-noout', '-in', active('key.pem')], '')).toContain('Key is valid')

      const signed = await new SignJWT({}).setProtectedHeader({ alg }).sign(await importPKCS8(readFileSync(active('key.pem'), 'utf8'), alg))
      await expect(jwtVerify(signed, await importJWK(jwkIn(out), alg))).resolves.toMatchObject({ protectedHeader: { alg } })
    })
  }

  test('the certificate lasts two years where that is asked for, never longer', async () => {
    const dates = judge(['x509', '-noout', '-dates'], pem(await printed('ES256', 730), 'CERTIFICATE'))
    const [from = NaN, to = NaN] = [...dates.matchAll(/=(.+)$/gm)].map((match) => Date.parse(match[1] ?? ''))
    expect((to - from) / 86_400_000).toBe(730)
    for (const days of [731, 0, -1, 365.5, NaN]) {
      await expect(firstKey(join(folder, 'other'), { name: 'partner', alg: 'ES256', days, now: 0 })).rejects.toThrow('1 to 730 days')
    }
    expect(readdirSync(folder)).toEqual(['keys'])
  })

  test('the ids are those that openssl computes', async () => {
    const out = await printed('ES256')
    const jwk = jwkIn(out)
    const der = execFileSync(openssl ?? '', ['x509', '-outform', 'der'], { input: pem(out, 'CERTIFICATE') })
    const sha256 = (input: string | Buffer): string => execFileSync(openssl ?? '', ['dgst', '-sha256', '-binary'], { input }).toString('base64url')
    expect(jwk['x5t#S256']).toBe(sha256(der))
    expect(jwk['x5c']).toEqual([der.toString('base64')])
    // RFC 7638: the required members in lexical order, nothing else
    expect(jwk['kid']).toBe(sha256(JSON.stringify({ crv: jwk['crv'], kty: jwk['kty'], x: jwk['x'], y: jwk['y'] })))
    expect(jwk).toMatchObject({ alg: 'ES256', use: 'sig' })
    expect(out).toContain(`kid          ${String(jwk['kid'])}`)
  })
})

describe('the private half', () => {
  test.each(['RS256', 'ES256'])('is never printed, nor in any file but its own (%s)', async (alg) => {
    const runs = [
      await attache(['keys', 'new', '--name', 'partner', '--alg', alg], folder),
      await attache(['keys', 'rotate', '--name', 'partner'], folder),
      await attache(['keys', 'list'], folder)
    ]
    expect(runs.map(({ code, err }) => ({ code, err }))).toEqual(Array(3).fill({ code: 0, err: '' }))
    const printedText = runs.map(({ out }) => out).join('\n')
    for (const state of ['active', 'next']) {
      const home = join(folder, 'keys/partner', state)
      const key = readFileSync(join(home, 'key.pem'), 'utf8')
      const others = readdirSync(home).filter((file) => file !== 'key.pem')
      const shown = [printedText, ...others.map((file) => readFileSync(join(home, file), 'utf8'))].join('\n')
      // The first line of an EC key is the same for every key of its curve.
      const secretLines = key.split('\n').filter((line) => /^[\w+/=]{40,}$/.test(line))
      expect(secretLines.length).toBeGreaterThan(1)
      for (const line of secretLines.slice(1)) expect(shown).not.toContain(line)
      const secret = privateMembers(key)
      expect(secret.length).toBeGreaterThan(0)
      for (const member of secret) expect(shown).not.toContain(member)
      expect(shown).not.toContain('PRIVATE KEY')
    }
    for (const { out } of runs.slice(0, 2)) expect(Object.keys(jwkIn(out)).filter((member) => PRIVATE_MEMBERS.includes(member))).toEqual([])
  })

  test('is 0600 in folders of 0700, whatever the umask', async () => {
    const umask = process.umask(0)
    try {
      await printed('ES256')
    } finally {
      process.umask(umask)
    }
    const mode = (path: string): string => (statSync(join(folder, 'keys', path)).mode & 0o777).toString(8)
    expect(['.', 'partner', 'partner/active'].map(mode)).toEqual(['700', '700', '700'])
    expect(mode('partner/active/key.pem')).toBe('600')
  })

  test('is never overwritten', async () => {
    await printed('ES256')
    const before = readFileSync(active('key.pem'), 'utf8')
    await expect(printed('ES256')).rejects.toThrow('partner has a key already, add one beside it with attache keys rotate')
    expect(readFileSync(active('key.pem'), 'utf8')).toBe(before)
    expect(readdirSync(join(folder, 'keys/partner'))).toHaveLength(2)
  })
})

/** The values of a private key that a JWK of it would have. */
function privateMembers(pemText: string): string[] {
  const jwk = new Map(Object.entries(createPrivateKey(pemText).export({ format: 'jwk' })))
  return PRIVATE_MEMBERS.map((member) => jwk.get(member)).filter((value) => typeof value === 'string')
}
