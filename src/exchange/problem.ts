/**
 * The closed table of local answers (contract §3): status, whether asking again can help, and the proxy error type of
 * RFC 9209 §2.3 that tells the app "the sidecar says no", not "the provider says no".
 */
export const PROBLEMS = {
  'unknown-upstream': { status: 404, retryable: false, error: 'destination_not_found', title: 'No upstream has this prefix' },
  'unknown-operation': { status: 404, retryable: false, error: 'http_request_denied', title: 'Not one of the agreed operations' },
  'host-not-allowed': { status: 421, retryable: false, error: 'http_request_denied', title: 'This Host is not in allowHosts' },
  'origin-not-allowed': { status: 403, retryable: false, error: 'http_request_denied', title: 'Browsers may not use this proxy' },
  'client-not-allowed': { status: 403, retryable: false, error: 'http_request_denied', title: 'Attache-Client is missing or wrong' },
  'bad-request': { status: 400, retryable: false, error: 'http_request_error', title: 'The request could mean two things' },
  'body-too-large': { status: 413, retryable: false, error: 'http_request_error', title: 'The request body is over the limit' },
  'headers-too-large': { status: 431, retryable: false, error: 'http_request_error', title: 'The request header is over the limit' },
  'volume-exhausted': { status: 429, retryable: true, error: 'http_request_denied', title: 'The agreed volume is used up' },
  'spend-exhausted': { status: 429, retryable: true, error: 'http_request_denied', title: 'The budget for this operation is used up' },
  'destination-not-allowed': { status: 403, retryable: false, error: 'http_request_denied', title: 'Not an agreed destination' },
  sunset: { status: 410, retryable: false, error: 'http_request_denied', title: 'This operation has been withdrawn' },
  'upstream-wait': { status: 503, retryable: true, error: 'destination_unavailable', title: 'The provider asked for a pause' },
  'breaker-open': { status: 503, retryable: true, error: 'destination_unavailable', title: 'Cooling down after repeated failures' },
  'token-unavailable': { status: 503, retryable: true, error: 'proxy_internal_response', title: 'No valid token can be had now' },
  'credential-rejected': { status: 503, retryable: false, error: 'proxy_internal_response', title: 'The token service refused the credential' },
  'upstream-timeout': { status: 504, retryable: true, error: 'http_response_timeout', title: 'No answer in time' },
  'upstream-unreachable': { status: 502, retryable: true, error: 'destination_unavailable', title: 'The provider cannot be reached' },
  'upstream-protocol': { status: 502, retryable: true, error: 'http_protocol_error', title: 'The answer was malformed' },
  'outcome-unknown': { status: 502, retryable: false, error: 'connection_terminated', title: 'The request may or may not have been carried out' },
  draining: { status: 503, retryable: true, error: 'proxy_internal_response', title: 'Shutting down' },
  'only-if-cached': { status: 504, retryable: false, error: 'proxy_internal_response', title: 'Not in the cache' },
  internal: { status: 500, retryable: false, error: 'proxy_internal_error', title: 'A fault of the proxy itself' }
} as const

export type ProblemCode = keyof typeof PROBLEMS

export type ProblemDetails = {
  /** Replaces the table's status where the code has two (405 for a known path). */
  readonly status?: number
  /** One sentence for the developer: names the thing and the way out; never a secret, host or library text. */
  readonly detail?: string
  /** Milliseconds until asking again makes sense; becomes `Retry-After` (every 429 and 503 gets one). */
  readonly retryAfterMs?: number
  /** The RFC 9209 error type where a sharper one than the table's is known (`dns_error`, `connection_refused`, …). */
  readonly proxyError?: string
  /** Further members of the problem document, e.g. `suggestions`. */
  readonly extra?: Readonly<Record<string, unknown>>
  readonly fields?: readonly string[]
  readonly cause?: unknown
}

/** The one error class: a local answer in the making. `message` is lower case, without full stop. */
export class Problem extends Error {
  readonly code: ProblemCode
  readonly details: ProblemDetails

  constructor(code: ProblemCode, details: ProblemDetails = {}) {
    super(details.detail ?? PROBLEMS[code].title.toLowerCase(), details.cause === undefined ? undefined : { cause: details.cause })
    this.name = 'Problem'
    this.code = code
    this.details = details
  }

  get status(): number {
    return this.details.status ?? PROBLEMS[this.code].status
  }
}

export function isProblem(error: unknown, ...codes: ProblemCode[]): error is Problem {
  return error instanceof Problem && (codes.length === 0 || codes.includes(error.code))
}

/** The caller hung up: the reason of its request's signal. Nobody is left to get an answer, so this is no problem of the table. */
export class CallerGone extends Error {
  constructor() {
    super('the caller has gone')
    this.name = 'CallerGone'
  }
}
