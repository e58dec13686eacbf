const LONGEST_DETAIL = 200

/**
 * Why a token request brought no token.
 *
 * - `refused`: the service answered with an error; nothing was issued.
 * - `unusable`: it answered with what is no token; something may have been issued.
 * - `unreachable`: no answer; `mayHaveArrived` tells whether something may have been issued.
 */
export type FailureKind = 'refused' | 'unusable' | 'unreachable'

export class TokenFailure extends Error {
  readonly kind: FailureKind
  /** The OAuth error code (RFC 6749 §5.2), where the service gave one that looks like one. */
  readonly error: string | undefined
  readonly status: number | undefined
  /** What the service asked us to wait. */
  readonly retryAfterMs: number | undefined
  /** For the log only: at most 200 printable characters of the service's own words, without secrets. */
  readonly detail: string | undefined
  readonly mayHaveArrived: boolean

  constructor(
    kind: FailureKind,
    message: string,
    more: { error?: string; status?: number; retryAfterMs?: number | undefined; detail?: string; mayHaveArrived?: boolean; cause?: unknown } = {}
  ) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause })
    this.name = 'TokenFailure'
    this.kind = kind
    this.error = more.error
    this.status = more.status
    this.retryAfterMs = more.retryAfterMs
    this.detail = more.detail
    this.mayHaveArrived = more.mayHaveArrived ?? kind === 'unusable'
  }
}

/** A stranger's text made fit for the log: known secrets out, one line, printable ASCII, at most 200 characters. */
export function printable(text: string, secrets: readonly string[]): string {
  // Longer than any line of a log: 10 MB of error_description are not searched for secrets.
  let clean = text.slice(0, 20 * LONGEST_DETAIL)
  for (const secret of secrets) {
    if (secret.length < 4) continue
    for (const form of [secret, encodeURIComponent(secret), Buffer.from(secret).toString('base64')]) clean = clean.replaceAll(form, '[secret]')
  }
  clean = clean.replaceAll(/[^\x20-\x7e]+/g, ' ').trim()
  return clean.length <= LONGEST_DETAIL ? clean : `${clean.slice(0, LONGEST_DETAIL - 3)}...`
}
