import { createHash, createPrivateKey, createPublicKey, X509Certificate, type KeyObject } from 'node:crypto'
import { calculateJwkThumbprint } from 'jose'
import { KeyError } from './key-error.ts'
import { openPkcs12 } from './pkcs12.ts'

/** A private key with what is known of it, ready to sign and to open TLS connections. */
export type KeyMaterial = {
  readonly privateKey: KeyObject
  /** SHA-256 of the public key (SPKI), hex: tells keys apart. */
  readonly fingerprint: string
  /** The `kid` written in the JWK, where the key came as one. */
  readonly jwkKid: string | undefined
  /** The key's own certificate first, then its chain; empty for a raw key. */
  readonly certificates: readonly X509Certificate[]
  /** Milliseconds since the epoch, of the key's own certificate. */
  readonly notBefore: number | undefined
  readonly notAfter: number | undefined
}

const MIN_RSA_BITS = 2048
const MAX_CHAIN = 10

/**
 * Reads a private key (PEM in any of its forms, JWK, or PKCS#12 as latin-1 or base64) and the certificate that belongs
 * to it: its own option, else what the key's file contains. Throws `KeyError`.
 */
export function loadKey(text: string, passphrase: string | undefined, certificateText: string | undefined): KeyMaterial {
  const { privateKey, jwkKid, certificates: enclosed } = readKey(text, passphrase)
  if (privateKey.asymmetricKeyType === 'rsa' && (privateKey.asymmetricKeyDetails?.modulusLength ?? 0) < MIN_RSA_BITS) {
    throw new KeyError(`key has fewer than ${MIN_RSA_BITS} bits, make a new one`)
  }
  const certificates = inOrder(certificateText === undefined ? enclosed : readCertificates(certificateText), privateKey)
  const own = certificates[0]
  return {
    privateKey,
    fingerprint: createHash('sha256')
      .update(createPublicKey(privateKey).export({ format: 'der', type: 'spki' }))
      .digest('hex'),
    jwkKid,
    certificates,
    notBefore: own?.validFromDate.getTime(),
    notAfter: own?.validToDate.getTime()
  }
}

/** The key id of a raw key: the JWK's own, else the RFC 7638 thumbprint of its public half, base64url. */
export async function keyId(material: KeyMaterial): Promise<string> {
  return material.jwkKid ?? keyThumbprint(material)
}

/** The RFC 7638 thumbprint (SHA-256) of the public half, base64url. */
export function keyThumbprint(material: KeyMaterial): Promise<string> {
  return calculateJwkThumbprint(createPublicKey(material.privateKey).export({ format: 'jwk' }))
}

/** Key and chain as PEM, for a TLS connection that presents them. */
export function tlsIdentity(material: KeyMaterial): { cert: string; key: string } {
  return {
    cert: material.certificates.map((certificate) => certificate.toString()).join(''),
    key: material.privateKey.export({ format: 'pem', type: 'pkcs8' }).toString()
  }
}

/** SHA-1 (`x5t`) or SHA-256 (`x5t#S256`) of a certificate's DER, base64url (RFC 7515 §4.1.7, §4.1.8). */
export function certificateThumbprint(certificate: X509Certificate, hash: 'sha1' | 'sha256'): string {
  return createHash(hash).update(certificate.raw).digest('base64url')
}

type ReadKey = { privateKey: KeyObject; jwkKid: string | undefined; certificates: X509Certificate[] }

function readKey(text: string, passphrase: string | undefined): ReadKey {
  const trimmed = text.trim()
  if (trimmed.startsWith('{')) return readJwk(trimmed)
  if (trimmed.includes('-----BEGIN')) return readPem(trimmed, passphrase)
  return readPkcs12(text, passphrase)
}

function readJwk(text: string): ReadKey {
  const jwk = parseJwk(text)
  if (typeof jwk['d'] !== 'string') throw new KeyError('key is a public JWK, the private one is needed')
  try {
    const privateKey = createPrivateKey({ key: jwk, format: 'jwk' })
    return { privateKey, jwkKid: typeof jwk['kid'] === 'string' ? jwk['kid'] : undefined, certificates: enclosedInJwk(jwk) }
  } catch (cause) {
    throw new KeyError('key is no usable JWK', cause)
  }
}

function parseJwk(text: string): Record<string, unknown> {
  try {
    const jwk: unknown = JSON.parse(text)
    if (isObject(jwk)) return jwk
  } catch (cause) {
    throw new KeyError('key looks like a JWK but is not JSON', cause)
  }
  throw new KeyError('key is no usable JWK')
}

function enclosedInJwk(jwk: Record<string, unknown>): X509Certificate[] {
  const chain: unknown[] = Array.isArray(jwk['x5c']) ? jwk['x5c'].slice(0, MAX_CHAIN) : []
  return chain.filter((der) => typeof der === 'string').map((der) => new X509Certificate(Buffer.from(der, 'base64')))
}

function readPem(text: string, passphrase: string | undefined): ReadKey {
  const encrypted = text.includes('ENCRYPTED')
  if (encrypted && passphrase === undefined) throw new KeyError('key is encrypted, it needs keyPassphrase')
  if (!text.includes('PRIVATE KEY-----')) throw new KeyError('key has no private key in it')
  try {
    const privateKey = createPrivateKey(passphrase === undefined ? text : { key: text, passphrase })
    return { privateKey, jwkKid: undefined, certificates: text.includes('-----BEGIN CERTIFICATE-----') ? readCertificates(text) : [] }
  } catch (cause) {
    if (cause instanceof KeyError) throw cause
    throw new KeyError(encrypted ? 'key cannot be opened, keyPassphrase is wrong' : 'key is no usable private key', cause)
  }
}

function readPkcs12(text: string, passphrase: string | undefined): ReadKey {
  const bytes = text.charCodeAt(0) === 0x30 && /[^\x20-\x7e\s]/.test(text) ? Buffer.from(text, 'latin1') : Buffer.from(text, 'base64')
  if (bytes[0] !== 0x30) throw new KeyError('key is neither PEM nor JWK nor PKCS#12')
  const { privateKey, certificates } = openPkcs12(bytes, passphrase ?? '')
  return { privateKey, jwkKid: undefined, certificates }
}

function readCertificates(text: string): X509Certificate[] {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  if (blocks.length === 0) throw new KeyError('certificate has no PEM certificate in it')
  if (blocks.length > MAX_CHAIN) throw new KeyError(`certificate has more than ${MAX_CHAIN} certificates in it`)
  try {
    return blocks.map((block) => new X509Certificate(block))
  } catch (cause) {
    throw new KeyError('certificate is damaged', cause)
  }
}

/** The key's own certificate first: files have them in either order. */
function inOrder(certificates: readonly X509Certificate[], privateKey: KeyObject): X509Certificate[] {
  if (certificates.length === 0) return []
  const own = certificates.find((certificate) => certificate.checkPrivateKey(privateKey))
  if (own === undefined) throw new KeyError('certificate does not belong to the key')
  return [own, ...certificates.filter((certificate) => certificate !== own)]
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Refuses to sign with a key that has ended or not begun: the provider would only count it against us. Throws `KeyError`. */
export function assertValidNow(material: KeyMaterial | undefined, endsAt: number | undefined, wallNow: number): void {
  if (material === undefined) return
  const notAfter = Math.min(material.notAfter ?? Infinity, endsAt ?? Infinity)
  const what = material.notAfter === undefined ? 'key' : 'certificate'
  if (wallNow >= notAfter) throw new KeyError(`${what} expired on ${new Date(notAfter).toISOString().slice(0, 10)}, replace it`)
  if (material.notBefore !== undefined && wallNow < material.notBefore) {
    throw new KeyError(`${what} is valid from ${new Date(material.notBefore).toISOString()} only, or our clock is behind`)
  }
}
