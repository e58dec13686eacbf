import { beforeAll, describe, expect, test } from 'vitest'
import { loadConfig, type LoadOptions } from '../../../src/config/load.ts'
import { makeKeyPair, type KeyPair } from '../../../src/tokens/keys/key-pair.ts'
import { files, refused } from './written.ts'

const MADE = Date.UTC(2026, 5, 1)
const DAY_MS = 86_400_000

let pair: KeyPair
let other: KeyPair

beforeAll(async () => {
  pair = await makeKeyPair({ alg: 'ES256', name: 'partner', days: 365, now: MADE })
  other = await makeKeyPair({ alg: 'ES256', name: 'other', days: 365, now: MADE })
})

/** What a config with this key and certificate is told, some days after the key was made. */
function judged(contents: { key: string; certificate?: string; extra?: string }, days: number, options: LoadOptions = {}) {
  const certificate = contents.certificate === undefined ? '' : ', certificate: file:crt'
  const yaml = `credentials:
  partner: { grant: client_credentials, clientAuth: private_key_jwt, tokenUrl: "https://a.example/t", clientId: p, key: file:key${certificate}${contents.extra ?? ''} }
upstreams:
  api: { baseUrl: "https://api.example/", credential: partner, agreement: integration-agreement, waivers: [WAIVER] }
`
  const file = files({ 'attache.yaml': yaml.replace('WAIVER', waiver), key: contents.key, crt: contents.certificate ?? 'x' })
  const result = loadConfig(file, {}, { wallNow: () => MADE + days * DAY_MS, ...options })
  const words = (findings: readonly { key: string; message: string }[]): string[] => findings.map(({ key, message }) => `${key}: ${message}`)
  return { kind: result.kind, findings: result.kind === 'refused' ? words(result.findings) : [], warnings: words(result.warnings) }
}

let waiver = ''

describe('keys and certificates', () => {
  test('that are in order pass without a word', () => {
    expect(judged({ key: pair.privatePem.reveal(), certificate: pair.publicHalf.certificatePem }, 10)).toEqual({ kind: 'loaded', findings: [], warnings: [] })
  })

  test('that do not belong together are refused', () => {
    expect(judged({ key: pair.privatePem.reveal(), certificate: other.publicHalf.certificatePem }, 10).findings).toEqual([
      'credentials.partner.key: certificate does not belong to the key'
    ])
  })

  test('that are none are refused', () => {
    expect(judged({ key: 'hunter2' }, 10).findings).toEqual(['credentials.partner.key: key is neither PEM nor JWK nor PKCS#12'])
    expect(judged({ key: pair.publicHalf.publicPem }, 10).findings).toHaveLength(1)
  })

  test('that end within weeks are warned about', () => {
    expect(judged({ key: pair.privatePem.reveal(), certificate: pair.publicHalf.certificatePem }, 355)).toMatchObject({
      kind: 'loaded',
      warnings: [expect.stringContaining('already late')]
    })
  })

  test('that have ended are refused by check, and do not keep the other providers from being served', () => {
    const ended = { key: pair.privatePem.reveal(), certificate: pair.publicHalf.certificatePem }
    expect(judged(ended, 366).findings).toEqual([expect.stringContaining('key ended on 2027-06-01')])
    expect(judged(ended, 366, { expired: 'warn' })).toMatchObject({ kind: 'loaded', warnings: [expect.stringContaining('key ended on 2027-06-01')] })
  })

  test('that last longer than two years are refused, unless the clause is waived', () => {
    const long = { key: pair.privatePem.reveal(), extra: ', expiresAt: 2030-01-01' }
    expect(judged(long, 10).findings).toEqual([expect.stringContaining('key lasts longer than 730 days')])
    waiver = '{ clause: IA-09, reason: agreed, until: 2027-01-01 }'
    expect(judged(long, 10).kind).toBe('loaded')
    expect(judged(long, 300).kind).toBe('refused')
    waiver = ''
  })
})

describe('private certification authorities', () => {
  const upstream = (ca: string): string => `upstreams:\n  api: { baseUrl: "https://api.example/", ca: "${ca}" }\n`

  test('that are certificates pass, until all of them have ended', () => {
    const file = files({ 'attache.yaml': upstream('file:ca'), ca: pair.publicHalf.certificatePem })
    expect(loadConfig(file, {}, { wallNow: () => MADE }).kind).toBe('loaded')
    const late = loadConfig(file, {}, { wallNow: () => MADE + 366 * DAY_MS })
    expect(late.kind === 'refused' && late.findings.map((finding) => finding.message)).toEqual(['has only certificates that have ended'])
  })

  test.each([
    ['missing', 'file:nowhere', 'file:nowhere does not exist'],
    ['no certificates', '${TEXT}', 'has no PEM certificate in it'],
    ['damaged', '${DAMAGED}', 'has a damaged certificate in it']
  ])('that are %s are refused', (_name, ca, message) => {
    const damaged = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----'
    expect(refused(upstream(ca), { TEXT: 'hello', DAMAGED: damaged })).toEqual([`2: upstreams.api.ca: ${message}`])
  })

  test('verification itself cannot be switched off', () => {
    expect(refused('upstreams:\n  api: { baseUrl: "https://api.example/", insecureSkipVerify: true }\n')).toEqual([
      expect.stringContaining('insecureSkipVerify: unknown key')
    ])
  })
})
