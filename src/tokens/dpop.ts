import { createHash, createPrivateKey, createPublicKey, generateKeyPairSync, randomUUID, type KeyObject } from 'node:crypto'
import { SignJWT, type JWK } from 'jose'

/** Makes the proofs that a token is used by the one it was issued to (RFC 9449). */
export type DpopProver = {
  /** A proof for one request: never sent twice. `accessToken` for API calls, not for token requests. */
  prove(method: string, url: string, nowMs: number, accessToken?: string): Promise<string>
  /** Remembers the newest nonce of the server that answered (§8, §9). */
  noteNonce(url: string, nonce: string | undefined): void
}

const MAX_ORIGINS = 100
const LONGEST_NONCE = 1024

/** A new key for proofs: private JWK, to be kept with the tokens that are bound to it. */
export function newDpopKey(): JWK {
  return generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' })
}

export function dpopProver(privateJwk: JWK): DpopProver {
  const privateKey = createPrivateKey({ key: privateJwk, format: 'jwk' })
  const publicJwk = publicJwkOf(privateKey)
  const nonces = new Map<string, string>()

  return {
    async prove(method, url, nowMs, accessToken) {
      const { origin, pathname } = new URL(url)
      const nonce = nonces.get(origin)
      return new SignJWT({
        jti: randomUUID(),
        htm: method,
        htu: origin + pathname,
        iat: Math.floor(nowMs / 1000),
        ...(accessToken === undefined ? {} : { ath: createHash('sha256').update(accessToken).digest('base64url') }),
        ...(nonce === undefined ? {} : { nonce })
      })
        .setProtectedHeader({ alg: 'ES256', typ: 'dpop+jwt', jwk: publicJwk })
        .sign(privateKey)
    },
    noteNonce(url, nonce) {
      if (nonce === undefined || nonce.length > LONGEST_NONCE) return
      const { origin } = new URL(url)
      const oldest = nonces.keys().next().value
      if (!nonces.has(origin) && nonces.size >= MAX_ORIGINS && oldest !== undefined) nonces.delete(oldest)
      nonces.set(origin, nonce)
    }
  }
}

function publicJwkOf(privateKey: KeyObject): JWK {
  const { kty, crv, x, y } = createPublicKey(privateKey).export({ format: 'jwk' })
  if (kty === undefined || crv === undefined || x === undefined || y === undefined) throw new TypeError('a DPoP key is an EC key')
  return { kty, crv, x, y }
}
