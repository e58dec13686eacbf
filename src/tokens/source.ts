import type { Signal } from '../exchange/signal.ts'
import type { ClientCertificate, Response } from '../exchange/message.ts'
import type { Fields } from '../http/fields.ts'

/** What one attempt carries to prove who we are. */
export type Authorization = {
  /** Fields to set; they replace fields of the same name. */
  readonly fields: Fields
  /** One `name=value` pair (already encoded) to set in the query, for providers that insist. */
  readonly query: string | undefined
  readonly clientCertificate: ClientCertificate | undefined
  /** Which token this is; grows with each renewal. 0 where there is no token. */
  readonly generation: number
  /** Values that must never reach the app, whatever the provider echoes. */
  readonly secrets: readonly string[]
}

/** One attempt about to be made: what a token may depend on (DPoP proof, organisation in the path). */
export type AttemptTarget = { readonly method: string; readonly url: string; readonly target: string }

/** A credential of the config, ready for use. */
export type TokenSource = {
  readonly name: string
  readonly grant: string
  /**
   * A stable id of everything that changes what the provider would answer (client, user, scope, key, organisation): part
   * of cache keys. Never a secret; changes when the secret does.
   */
  identity(target: string): string
  /**
   * The authorization for one attempt, at once where a token is held; otherwise all callers share one fetch.
   * `signal` abandons this caller's wait, never the fetch. Rejects with `token-unavailable` or `credential-rejected`.
   */
  authorize(attempt: AttemptTarget, signal: Signal): Authorization | Promise<Authorization>
  /**
   * The provider answered 401. Resolves true where a different authorization is worth one replay: a newer token is
   * already held, or a forced renewal (budgeted, contract §4.1) brought one. Never rejects.
   */
  rejected(attempt: AttemptTarget, authorization: Authorization, response: Response, signal: Signal): Promise<boolean>
  /** Every answer to an attempt that bore the authorization: some credentials learn from it (DPoP nonces, RFC 9449 §8.2). */
  answered?(attempt: AttemptTarget, response: Response): void
  /** An operator says that asking again makes sense: forgets a latch or a pause and gets another token. Rejects with a `Problem`. */
  renew?(): Promise<void>
  status(): CredentialStatus
  close(): Promise<void>
}

/** What `/api/status` shows of a credential: fingerprints and times, never a value. */
export type CredentialStatus = {
  readonly name: string
  readonly grant: string
  readonly state: 'empty' | 'fetching' | 'held' | 'cooling' | 'latched' | 'static'
  /** First 8 hex digits of SHA-256 of the access token. */
  readonly fingerprint?: string
  readonly obtainedAt?: number
  readonly expiresAt?: number
  /** When the certificate or key ends. */
  readonly credentialExpiresAt?: number
  readonly tokenRequests: number
  readonly lastError?: string
}

export type Credentials = {
  get(name: string): TokenSource | undefined
  all(): readonly TokenSource[]
  close(): Promise<void>
}
