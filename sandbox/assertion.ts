import { constants, createHash, createPublicKey, verify, X509Certificate, type KeyObject } from 'node:crypto'

/**
 * A registered public key; `kid` is its RFC 7638 thumbprint unless the partner named another. Real milliseconds since the
 * epoch, and only a certificate has them.
 */
export type RegisteredKey = { readonly kid: string; readonly key: KeyObject; readonly validity: { readonly from: number; readonly to: number } | undefined }

export type AssertionExpectations = {
  readonly keys: readonly RegisteredKey[]
  /** The only audience, or the few of a service that has not moved on from RFC 7523. */
  readonly audiences: readonly string[]
  /** Real milliseconds since the epoch: assertions carry calendar dates. */
  readonly wallNow: number
}

export type AssertionVerdict = {
  /** The client it speaks for, undefined where it proves nothing. */
  readonly client: string | undefined
  readonly jti: string | undefined
  /** Whether the certificate of its key has expired; not among the faults. */
  readonly isOutlived: boolean
  /** Everything that is wrong with it; empty for a good one. */
  readonly faults: readonly string[]
}

// Maskinporten's numbers, the strictest in public use
const LONGEST_LIFE_S = 120
const CLOCK_TOLERANCE_S = 10

type Claims = Record<string, unknown>

/**
 * Verifies a client assertion (RFC 7523 §3) by hand, so that it shares no code with who made it.
 *
 * The signature decides who speaks; every fault is named, also behind a good signature.
 */
export function verifyAssertion(assertion: string, expected: AssertionExpectations): AssertionVerdict {
  const faults: string[] = []
  const [headerPart, claimsPart, signaturePart, ...rest] = assertion.split('.')
  const header = decode(headerPart)
  const claims = decode(claimsPart)
  if (header === undefined || claims === undefined || signaturePart === undefined || rest.length > 0) {
    return { client: undefined, jti: undefined, isOutlived: false, faults: ['the assertion is not a JWT'] }
  }
  const registered = keyFor(header, expected.keys, faults)
  const key = registered?.key
  const signed = key !== undefined && isSignedBy(key, header['alg'], `${headerPart}.${claimsPart}`, Buffer.from(signaturePart, 'base64url'))
  if (key !== undefined && !signed) faults.push('the signature does not match')
  checkClaims(claims, expected, faults)
  const { iss, sub, jti } = claims
  if (typeof iss !== 'string' || iss !== sub) faults.push('iss and sub are not the same client')
  if (typeof jti !== 'string' || jti.length < 8) faults.push('jti is missing or guessable')
  return {
    client: signed && faults.length === 0 && typeof iss === 'string' ? iss : undefined,
    jti: typeof jti === 'string' ? jti : undefined,
    isOutlived: expected.wallNow > (registered?.validity?.to ?? Infinity),
    faults
  }
}

function keyFor(header: Claims, keys: readonly RegisteredKey[], faults: string[]): RegisteredKey | undefined {
  const { kid } = header
  if (typeof kid !== 'string') {
    faults.push('no kid in the header')
    return undefined
  }
  const registered = keys.find((known) => known.kid === kid)
  if (registered === undefined) faults.push('the kid is not registered (or locked)')
  return registered
}

function isSignedBy(key: KeyObject, alg: unknown, input: string, signature: Buffer): boolean {
  const data = Buffer.from(input)
  switch (alg) {
    case 'RS256':
      return key.asymmetricKeyType === 'rsa' && verify('sha256', data, key, signature)
    case 'PS256':
      return key.asymmetricKeyType === 'rsa' && verify('sha256', data, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 }, signature)
    case 'ES256':
      return key.asymmetricKeyType === 'ec' && verify('sha256', data, { key, dsaEncoding: 'ieee-p1363' }, signature)
    case 'EdDSA':
    case 'Ed25519':
      return key.asymmetricKeyType === 'ed25519' && verify(null, data, key, signature)
    default:
      return false
  }
}

function checkClaims(claims: Claims, expected: AssertionExpectations, faults: string[]): void {
  const nowS = expected.wallNow / 1000
  const { aud, exp, iat, nbf } = claims
  // RFC 7523bis: the audience is one string, not a list with room for others
  if (typeof aud !== 'string' || !expected.audiences.includes(aud)) faults.push('aud is not exactly this token service')
  if (typeof exp !== 'number' || typeof iat !== 'number') return void faults.push('exp or iat is missing')
  if (exp - iat > LONGEST_LIFE_S) faults.push(`it lives ${Math.round(exp - iat)} s, ${LONGEST_LIFE_S} s at most`)
  if (Math.abs(iat - nowS) > CLOCK_TOLERANCE_S) faults.push(`iat is ${Math.round(iat - nowS)} s off`)
  if (exp <= nowS) faults.push('it has expired')
  if (typeof nbf === 'number' && nbf > nowS + CLOCK_TOLERANCE_S) faults.push('it is not valid yet')
}

function decode(part: string | undefined): Claims | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(part ?? '', 'base64url').toString())
    return typeof value === 'object' && value !== null ? (value as Claims) : undefined
  } catch {
    return undefined
  }
}

/** Registers a public key or certificate in PEM, or a public JWK; private halves are refused. */
export function registerKey(input: string): RegisteredKey {
  if (isPrivate(input)) throw new Error('send the public half only')
  const jwkInput: unknown = input.trimStart().startsWith('{') ? JSON.parse(input) : undefined
  const key = jwkInput === undefined ? createPublicKey(input) : createPublicKey({ key: jwkInput as Record<string, string>, format: 'jwk' })
  const named = typeof jwkInput === 'object' && jwkInput !== null && 'kid' in jwkInput ? jwkInput.kid : undefined
  const certificate = input.includes('BEGIN CERTIFICATE-----') ? new X509Certificate(input) : undefined
  const validity = certificate === undefined ? undefined : { from: certificate.validFromDate.getTime(), to: certificate.validToDate.getTime() }
  return { kid: typeof named === 'string' ? named : thumbprint(key), key, validity }
}

/** Whether a text holds the private half of a key, as PEM or as JWK. */
export function isPrivate(text: string): boolean {
  return text.includes('PRIVATE KEY-----') || (/"kty"\s*:/.test(text) && /"d"\s*:/.test(text))
}

/** RFC 7638: SHA-256 over the required members in alphabetical order. */
export function thumbprint(key: KeyObject): string {
  const jwk = new Map(Object.entries(key.export({ format: 'jwk' })))
  const kind = jwk.get('kty')
  const members = kind === 'RSA' ? ['e', 'kty', 'n'] : kind === 'EC' ? ['crv', 'kty', 'x', 'y'] : ['crv', 'kty', 'x']
  const required = Object.fromEntries(members.map((name) => [name, jwk.get(name)]))
  return createHash('sha256').update(JSON.stringify(required)).digest('base64url')
}
