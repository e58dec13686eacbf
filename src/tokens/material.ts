import { createHmac } from 'node:crypto'
import type { Clock } from '../exchange/clock.ts'
import type { Secret, SecretSource } from '../exchange/secret.ts'
import { sealingKey } from '../state/seal.ts'
import { clientAuthOf } from './check.ts'
import { loadKey, type KeyMaterial } from './key-material.ts'
import type { CredentialOptions } from './options.ts'

/** A credential's values at one moment, revealed: lives only as long as the flight that needs it, or until a file changes. */
export type Material = {
  readonly clientId: string | undefined
  readonly clientSecret: string | undefined
  readonly username: string | undefined
  readonly password: string | undefined
  readonly refreshToken: string | undefined
  readonly subjectToken: string | undefined
  readonly value: string | undefined
  readonly scope: string | undefined
  readonly ca: string | undefined
  readonly key: KeyMaterial | undefined
  /**
   * 32 hex digits that change with everything that changes the token: where it comes from, for whom, for what, and the
   * secrets themselves. Keyed by those secrets, so that it gives nothing away.
   */
  readonly identity: string
  /** Seals what the credential obtained. */
  readonly sealKey: Buffer
  /** Every secret value, to be taken out of whatever is logged. */
  readonly secrets: readonly string[]
}

export type MaterialSource = {
  /** The values now; files are looked at once a second at most. Throws `KeyError`, or `ConfigError` where a secret has never been readable. */
  current(): Material
}

// Reading a secret costs a look at the file system, which has no place in every request.
const LOOK_EVERY_MS = 1000

const SECRET_KEYS = [
  'clientSecret',
  'username',
  'password',
  'refreshToken',
  'subjectToken',
  'value',
  'key',
  'keyPassphrase',
  'certificate',
  'ca',
  'stateSecret'
] as const
type SecretKey = (typeof SECRET_KEYS)[number]
type Secrets = Readonly<Partial<Record<SecretKey, Secret>>>

/** The values of a credential, with those of one of its variants in their place. */
export function materialSource(options: CredentialOptions, clock: Pick<Clock, 'now'>, variantKey?: string): MaterialSource {
  const merged = withVariant(options, variantKey)
  let seen: Secrets | undefined
  let material: Material | undefined
  let lookAgainAt = -Infinity

  function current(): Material {
    const now = clock.now()
    if (material !== undefined && now < lookAgainAt) return material
    lookAgainAt = now + LOOK_EVERY_MS
    const secrets = readAll(merged)
    // A source gives the very same secret as long as nothing changed.
    if (material === undefined || seen === undefined || SECRET_KEYS.some((key) => secrets[key] !== seen?.[key])) {
      material = makeMaterial(merged, secrets, variantKey)
      seen = secrets
    }
    return material
  }
  return { current }
}

/** The identity now; a stand-in where the credential cannot be read, and so can get no answer that could be confused. */
export function identityOf(name: string, materials: MaterialSource): string {
  try {
    return materials.current().identity
  } catch {
    // Whoever needs the credential itself is told why.
    return `unreadable ${name}`
  }
}

/** The options in force for one key of `perKey`. */
export function withVariant(options: CredentialOptions, variantKey: string | undefined): CredentialOptions {
  const variant = variantKey === undefined ? undefined : options.variants[variantKey]
  return variant === undefined ? options : { ...options, ...variant }
}

function readAll(options: CredentialOptions): Secrets {
  const secrets: Partial<Record<SecretKey, Secret>> = {}
  for (const key of SECRET_KEYS) {
    const source: SecretSource | undefined = options[key]
    if (source !== undefined) secrets[key] = source.read()
  }
  return secrets
}

function makeMaterial(options: CredentialOptions, secrets: Secrets, variantKey: string | undefined): Material {
  const plain = (key: SecretKey): string | undefined => secrets[key]?.reveal()
  const keyText = plain('key')
  const key = keyText === undefined ? undefined : loadKey(keyText, plain('keyPassphrase'), plain('certificate'))
  const sealKey = sealingKey(sealMaterial(options, plain, key), 'token')
  return {
    clientId: options.clientId,
    clientSecret: plain('clientSecret'),
    username: plain('username'),
    password: plain('password'),
    refreshToken: plain('refreshToken'),
    subjectToken: plain('subjectToken'),
    value: plain('value'),
    scope: options.scope,
    ca: plain('ca'),
    key,
    identity: createHmac('sha256', sealKey)
      .update(everythingThatMatters(options, plain, key, variantKey))
      .digest('hex')
      .slice(0, 32),
    sealKey,
    secrets: SECRET_KEYS.filter((name) => name !== 'ca' && name !== 'certificate')
      .map(plain)
      .filter((value) => value !== undefined)
  }
}

/** All the secrets together, so that the strongest protects the weakest. */
function sealMaterial(options: CredentialOptions, plain: (key: SecretKey) => string | undefined, key: KeyMaterial | undefined): string {
  const privateKey = key?.privateKey.export({ format: 'der', type: 'pkcs8' }).toString('base64')
  const lasting = [plain('clientSecret'), plain('password'), plain('value'), plain('stateSecret'), privateKey]
  // The first refresh token may be taken out of the config once it is used up; it seals only where nothing else can.
  const first = options.grant === 'refresh_token' && lasting.some((secret) => secret !== undefined) ? undefined : plain('refreshToken')
  return JSON.stringify([...lasting, first, plain('subjectToken')])
}

function everythingThatMatters(
  options: CredentialOptions,
  plain: (key: SecretKey) => string | undefined,
  key: KeyMaterial | undefined,
  variantKey: string | undefined
): string {
  const { assertion } = options
  return JSON.stringify([
    options.grant,
    options.tokenUrl,
    options.issuer,
    options.clientId,
    clientAuthOf(options),
    plain('username'),
    options.scope,
    Object.entries(options.params).toSorted(([a], [b]) => (a < b ? -1 : 1)),
    key?.fingerprint,
    // Tokens may be bound to the certificate the connection showed (RFC 8705 §3).
    options.clientAuth?.endsWith('tls_client_auth') ? key?.certificates[0]?.fingerprint256 : undefined,
    [assertion.issuer, assertion.subject, assertion.audience, assertion.claims],
    options.subjectTokenType,
    options.dpop,
    [options.header, options.query, options.prefix],
    variantKey
  ])
}
