/** What a key pair can be made for (RFC 7518 §3.1). */
export const KEY_ALGORITHMS = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512'] as const
export type KeyAlgorithm = (typeof KEY_ALGORITHMS)[number]

/** Everything of a pair that may be shown and sent: nothing in here helps to sign. Times are epoch milliseconds. */
export type PublicHalf = {
  readonly alg: KeyAlgorithm
  /** RFC 7638 thumbprint, base64url. */
  readonly kid: string
  /** `x5t#S256` of the self-signed certificate (RFC 7515 §4.1.8), base64url. */
  readonly thumbprint: string
  readonly jwk: Readonly<Record<string, unknown>>
  readonly publicPem: string
  readonly certificatePem: string
  readonly requestPem: string
  readonly notBefore: number
  readonly notAfter: number
}

/** A key on disk, as `attache keys list` shows it; times are epoch milliseconds. */
export type KeyRecord = {
  readonly name: string
  readonly state: 'active' | 'next' | 'retired'
  readonly folder: string
  readonly kid: string
  /** `x5t#S256`. */
  readonly thumbprint: string
  readonly alg: KeyAlgorithm | undefined
  readonly createdAt: number
  readonly expiresAt: number
  /** From when on the next key may take over. */
  readonly activateAt: number | undefined
  /** When a real token request was granted with it. */
  readonly provenAt: number | undefined
}

/** What cannot be done with the keys as they are; the message names the way out. */
export class KeyFolderError extends Error {
  override readonly name = 'KeyFolderError'
}
