import { readFileSync } from 'node:fs'
import { assertCanSign } from '../assertion.ts'
import { clientAuthOf } from '../check.ts'
import type { CredentialOptions } from '../credentials.ts'
import { KeyError } from '../key-error.ts'
import { loadKey, type KeyMaterial } from '../key-material.ts'
import { privateKeyFile } from './key-folder.ts'
import type { KeyRecord } from './key-record.ts'
import { expiryOf, keyFindings, type KeyFinding } from './expiry.ts'

/** The key of one credential of the config, looked into. */
export type CredentialKey = {
  readonly credential: string
  /** Undefined where the key cannot be read. */
  readonly fingerprint: string | undefined
  readonly expiresAt: number | undefined
  readonly findings: readonly KeyFinding[]
}

/**
 * Looks into the key and certificate of every credential that has one: unreadable, not belonging together, of a kind
 * that cannot sign as configured, expired, not yet valid, lasting longer than 730 days, due for renewal. `now` is epoch milliseconds. Sends nothing, prints nothing.
 */
export function credentialKeys(credentials: Readonly<Record<string, CredentialOptions>>, now: number): CredentialKey[] {
  return Object.entries(credentials).flatMap(([credential, options]) => (options.key === undefined ? [] : [{ credential, ...inspect(options, now) }]))
}

function inspect(options: CredentialOptions, now: number): Omit<CredentialKey, 'credential'> {
  try {
    const material = load(options)
    const life = { notBefore: material.notBefore, notAfter: material.notAfter, expiresAt: options.expiresAt }
    return { fingerprint: material.fingerprint, expiresAt: expiryOf(life), findings: keyFindings(life, now) }
  } catch (error) {
    if (!(error instanceof Error)) throw error
    // A secret that cannot be read was found by the config already, and says so in the same way.
    const message = error instanceof KeyError ? error.message : `key ${error.message}`
    return { fingerprint: undefined, expiresAt: undefined, findings: [{ reason: 'unusable', isFatal: true, clause: 'IA-06', message }] }
  }
}

function load(options: CredentialOptions): KeyMaterial {
  const { key, keyPassphrase, certificate } = options
  if (key === undefined) throw new KeyError('key is missing')
  const material = loadKey(key.read().reveal(), keyPassphrase?.read().reveal(), certificate?.read().reveal())
  if (options.grant === 'jwt_bearer' || clientAuthOf(options) === 'private_key_jwt') assertCanSign(options.assertion, material.privateKey)
  return material
}

/** The fingerprint of a key on disk, as `CredentialKey` has it. */
export function fingerprintOf(key: Pick<KeyRecord, 'folder'>): string {
  return loadKey(readFileSync(privateKeyFile(key), 'utf8'), undefined, undefined).fingerprint
}
