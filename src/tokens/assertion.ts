import { createSecretKey, randomUUID, type KeyObject } from 'node:crypto'
import { SignJWT, type JWTHeaderParameters, type JWTPayload } from 'jose'
import { KeyError } from './key-error.ts'
import { certificateThumbprint, keyId, keyThumbprint, type KeyMaterial } from './key-material.ts'
import type { AssertionOptions } from './options.ts'

/** What signs: the private key, or the client secret for `client_secret_jwt`. */
export type Signer = { readonly kind: 'key'; readonly material: KeyMaterial } | { readonly kind: 'secret'; readonly secret: string }

export type AssertionContext = {
  readonly issuer: string
  readonly subject: string | undefined
  /** The token service's issuer identifier, where it is known. */
  readonly serviceIssuer: string | undefined
  readonly tokenUrl: string
  /** Calendar time by the token service's clock: our own, corrected by the measured skew. */
  readonly nowMs: number
  /** Claims of the grant, e.g. `scope`; the configured ones go over them. */
  readonly claims?: Readonly<Record<string, unknown>>
}

/**
 * Signs one assertion (RFC 7523 §3), with a `jti`, `iat` and `exp` of its own: an assertion is never sent twice, services
 * remember the ones they have seen. Throws `KeyError` where the key cannot sign so.
 */
export async function signAssertion(options: AssertionOptions, signer: Signer, context: AssertionContext): Promise<string> {
  const issuedAt = Math.floor((context.nowMs - options.backdate) / 1000)
  const payload: JWTPayload = {
    ...context.claims,
    iss: options.issuer ?? context.issuer,
    aud: audience(options, context),
    iat: issuedAt,
    exp: issuedAt + Math.floor(options.lifetime / 1000),
    jti: randomUUID()
  }
  const subject = options.subject ?? context.subject
  if (subject !== undefined) payload.sub = subject
  if (options.include.includes('nbf')) payload.nbf = issuedAt
  try {
    return await new SignJWT({ ...payload, ...options.claims }).setProtectedHeader(await header(options, signer)).sign(signingKey(signer))
  } catch (cause) {
    throw cause instanceof KeyError ? cause : new KeyError(`key cannot sign with ${algorithm(options, signer)}, see assertion.alg`, cause)
  }
}

function audience(options: AssertionOptions, context: AssertionContext): string | string[] {
  const named = options.audience ?? (context.serviceIssuer === undefined ? 'tokenUrl' : 'issuer')
  const value = named === 'tokenUrl' ? context.tokenUrl : named === 'issuer' ? (context.serviceIssuer ?? context.tokenUrl) : named
  return options.audienceForm === 'array' ? [value] : value
}

async function header(options: AssertionOptions, signer: Signer): Promise<JWTHeaderParameters> {
  const fields: JWTHeaderParameters = { alg: algorithm(options, signer) }
  if (options.typ !== 'none') fields.typ = options.typ ?? 'JWT'
  if (signer.kind === 'secret') return options.kid === undefined || isKeyword(options.kid) ? fields : { ...fields, kid: options.kid }

  const own = signer.material.certificates[0]
  const wantsCertificate = options.include.some((field) => field !== 'nbf')
  if (wantsCertificate && own === undefined) throw new KeyError('assertion.include names the certificate, but there is none: set certificate')
  if (own !== undefined) {
    if (options.include.includes('x5t')) fields.x5t = certificateThumbprint(own, 'sha1')
    if (options.include.includes('x5t#S256')) fields['x5t#S256'] = certificateThumbprint(own, 'sha256')
    if (options.include.includes('x5c')) fields.x5c = signer.material.certificates.map((certificate) => certificate.raw.toString('base64'))
  }
  // Services that look the key up by certificate take a kid beside it for a contradiction.
  const kid = options.kid ?? (wantsCertificate ? 'none' : 'auto')
  if (kid === 'auto') fields.kid = await keyId(signer.material)
  else if (kid === 'thumbprint') fields.kid = await keyThumbprint(signer.material)
  else if (kid !== 'none') fields.kid = kid
  return fields
}

function isKeyword(kid: string): boolean {
  return kid === 'auto' || kid === 'thumbprint' || kid === 'none'
}

/** Finds out before anything is sent whether the key can sign as configured. Throws `KeyError`. */
export function assertCanSign(options: Pick<AssertionOptions, 'alg'>, privateKey: KeyObject): void {
  const alg = options.alg ?? algorithmOf(privateKey)
  const { asymmetricKeyType: type } = privateKey
  const fits =
    type === 'rsa' ? /^[RP]S/.test(alg) : type === 'rsa-pss' ? alg.startsWith('PS') : alg === BY_CURVE[privateKey.asymmetricKeyDetails?.namedCurve ?? '']
  if (!fits) throw new KeyError(`key cannot sign with ${alg}, see assertion.alg`)
}

const BY_CURVE: Readonly<Record<string, string>> = { prime256v1: 'ES256', secp384r1: 'ES384', secp521r1: 'ES512' }

function algorithm(options: AssertionOptions, signer: Signer): string {
  if (options.alg !== undefined) return options.alg
  return signer.kind === 'secret' ? 'HS256' : algorithmOf(signer.material.privateKey)
}

function algorithmOf({ asymmetricKeyType: type, asymmetricKeyDetails: details }: KeyObject): string {
  if (type === 'rsa') return 'RS256'
  if (type === 'rsa-pss') return 'PS256'
  const chosen = BY_CURVE[details?.namedCurve ?? '']
  if (chosen === undefined) throw new KeyError('key is of a kind that signs no assertions: use RSA, or EC on P-256, P-384 or P-521')
  return chosen
}

function signingKey(signer: Signer): KeyObject {
  return signer.kind === 'key' ? signer.material.privateKey : createSecretKey(Buffer.from(signer.secret, 'utf8'))
}
