import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { loadConfig } from '../../../../src/config/load.ts'
import { credentialKeys, type CredentialKey } from '../../../../src/tokens/keys/inspect.ts'
import { makeKeyPair, type KeyPair } from '../../../../src/tokens/keys/key-pair.ts'

const NOW = Date.UTC(2026, 5, 1)
const DAY_MS = 86_400_000

describe('the keys of the config’s credentials', () => {
  let folder: string
  let pair: KeyPair
  let other: KeyPair

  beforeAll(async () => {
    pair = await makeKeyPair({ alg: 'ES256', name: 'partner', days: 365, now: NOW })
    other = await makeKeyPair({ alg: 'ES256', name: 'other', days: 365, now: NOW })
  })
  beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'attache-inspect-'))))
  afterEach(() => rmSync(folder, { recursive: true, force: true }))

  function inspect(files: { key: string; certificate?: string }, now: number, more = ''): CredentialKey[] {
    writeFileSync(join(folder, 'key.pem'), files.key, { mode: 0o600 })
    if (files.certificate !== undefined) writeFileSync(join(folder, 'crt.pem'), files.certificate)
    const certificate = files.certificate === undefined ? '' : 'certificate: file:crt.pem'
    writeFileSync(
      join(folder, 'attache.yaml'),
      `version: 1
credentials:
  partner:
    grant: client_credentials
    tokenUrl: http://127.0.0.1:9/token
    clientId: partner-1
    key: file:key.pem
    ${certificate}
    ${more}
  keyless: { grant: none }
upstreams:
  api: { baseUrl: "http://127.0.0.1:9/", credential: [{ match: "/a", credential: keyless }, { credential: partner }] }
`
    )
    // In order at that time, so that what is found is found by looking at another.
    const result = loadConfig(join(folder, 'attache.yaml'), {}, { expired: 'warn', wallNow: () => NOW })
    if (result.kind === 'refused') return [{ credential: 'refused', fingerprint: undefined, expiresAt: undefined, findings: [] }]
    return credentialKeys(result.config.credentials, now)
  }
  const reasons = (keys: CredentialKey[]): string[] => keys.flatMap((key) => key.findings.map((finding) => finding.reason))
  const certified = (): { key: string; certificate: string } => ({ key: pair.privatePem.reveal(), certificate: pair.publicHalf.certificatePem })

  test('are known by fingerprint and end, and credentials without one are left out', () => {
    const keys = inspect(certified(), NOW)
    expect(keys).toEqual([{ credential: 'partner', fingerprint: expect.stringMatching(/^[0-9a-f]{64}$/), expiresAt: NOW + 365 * DAY_MS, findings: [] }])
  })

  test('are found to have ended, or to end soon', () => {
    expect(reasons(inspect(certified(), NOW + 365 * DAY_MS))).toEqual(['expired'])
    expect(reasons(inspect(certified(), NOW + 340 * DAY_MS))).toEqual(['ends-soon'])
    expect(reasons(inspect(certified(), NOW - DAY_MS))).toEqual(['not-yet-valid'])
  })

  test('without certificate end when the config says, at most two years from now', () => {
    const raw = { key: pair.privatePem.reveal() }
    expect(inspect(raw, NOW, 'expiresAt: 2027-06-01')).toMatchObject([{ expiresAt: Date.UTC(2027, 5, 1), findings: [] }])
    expect(reasons(inspect(raw, NOW - 2 * 365 * DAY_MS, 'expiresAt: 2027-06-01'))).toEqual(['too-long'])
    expect(reasons(inspect(raw, NOW))).toEqual(['end-unknown'])
  })

  test('that do not belong to their certificate are refused by the config', () => {
    expect(inspect({ key: pair.privatePem.reveal(), certificate: other.publicHalf.certificatePem }, NOW)).toMatchObject([{ credential: 'refused' }])
  })

  test('that have become unusable since are found so, without a word of their content', () => {
    const keys = inspect(certified(), NOW)
    expect(keys).toHaveLength(1)
    const unusable = inspectChanged(other.publicHalf.certificatePem)
    expect(unusable).toMatchObject([
      { fingerprint: undefined, findings: [{ reason: 'unusable', isFatal: true, message: expect.stringContaining('does not belong') }] }
    ])
  })

  function inspectChanged(certificate: string): CredentialKey[] {
    const result = loadConfig(join(folder, 'attache.yaml'), {}, { wallNow: () => NOW })
    if (result.kind === 'refused') throw new Error('the config should be in order')
    writeFileSync(join(folder, 'crt.pem'), certificate)
    return credentialKeys(result.config.credentials, NOW)
  }
})
