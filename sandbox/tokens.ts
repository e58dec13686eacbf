import { createHash, randomBytes } from 'node:crypto'

/** An access token as its issuer remembers it. */
export type Token = {
  readonly value: string
  /** First 8 hex digits of its SHA-256: what may be written down. */
  readonly fingerprint: string
  readonly client: string
  readonly subject: string
  /** Provider milliseconds when the request for it arrived. */
  readonly askedAt: number
  readonly expiresAt: number
  readonly lifetimeMs: number
  /** Set when the provider turned it down although its time was not over. */
  rejectedAt: number | undefined
  revoked: boolean
  /** Its answer never reached the client. */
  lost: boolean
}

export type TokenBook = {
  issue(client: string, subject: string, askedAt: number, lifetimeMs: number): Token
  find(value: string): Token | undefined
  revokeAll(): void
}

const MOST_TOKENS = 10_000

/** Opaque random tokens, the oldest forgotten beyond 10,000. */
export function tokenBook(): TokenBook {
  const tokens = new Map<string, Token>()
  return {
    issue(client, subject, askedAt, lifetimeMs) {
      const value = randomBytes(48).toString('base64url')
      const token = {
        value,
        fingerprint: fingerprint(value),
        client,
        subject,
        askedAt,
        expiresAt: askedAt + lifetimeMs,
        lifetimeMs,
        rejectedAt: undefined,
        revoked: false,
        lost: false
      }
      tokens.set(value, token)
      const oldest = tokens.keys().next().value
      if (tokens.size > MOST_TOKENS && oldest !== undefined) tokens.delete(oldest)
      return token
    },
    find: (value) => tokens.get(value),
    revokeAll() {
      for (const token of tokens.values()) token.revoked = true
    }
  }
}

/** First 8 hex digits of SHA-256. */
export function fingerprint(value: string): string {
  return createHash('sha256').update(value).digest('hex').slice(0, 8)
}
