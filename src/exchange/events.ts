import type { ProblemCode } from './problem.ts'
import type { Source } from './message.ts'

/**
 * Everything the house reports, one closed union. Policies report; metrics, log and ledger count. Labels are bounded:
 * `operation` is a template or `other`, `credential` and `upstream` are names from the config.
 */
export type Event =
  | {
      kind: 'request'
      upstream: string
      operation: string
      method: string
      status: number
      source: Source
      problem: ProblemCode | undefined
      id: string
      attempts: number
      durationMs: number
      upstreamMs: number
      waitMs: number
      tokenMs: number
      callerGone: boolean
    }
  | { kind: 'attempt-started'; upstream: string }
  | { kind: 'attempt'; upstream: string; operation: string; code: string; result: 'success' | 'failure' | 'cancelled'; durationMs: number }
  | { kind: 'retry'; upstream: string; reason: string; waitMs: number }
  | { kind: 'operation-failed'; upstream: string; code: string }
  | { kind: 'call-avoided'; upstream: string; reason: 'cache' | 'collapsed' | 'guard' | 'gate' | 'breaker' | 'volume' | 'stale' }
  | { kind: 'breaker'; upstream: string; state: 'closed' | 'open' | 'half-open' }
  | { kind: 'gate'; upstream: string; until: number }
  | { kind: 'queue'; upstream: string; length: number }
  | { kind: 'cache'; upstream: string; result: 'hit' | 'miss' | 'stale' | 'revalidated' | 'collapsed' | 'bypass' }
  | { kind: 'cache-size'; upstream: string; bytes: number; entries: number; evictions: number }
  | { kind: 'volume'; upstream: string; window: string; usedRatio: number }
  | {
      kind: 'token-request'
      credential: string
      grant: string
      reason: TokenReason
      result: 'success' | 'failure' | 'rejected'
      durationMs: number
      detail: string | undefined
    }
  | { kind: 'token-use'; credential: string }
  | { kind: 'token-held'; credential: string; fingerprint: string; obtainedAt: number; expiresAt: number; reuseRatio: number | undefined }
  | { kind: 'credential-expiry'; credential: string; expiresAt: number }
  | { kind: 'credential-latched'; credential: string; error: string }
  | { kind: 'auth-error'; upstream: string; credential: string | undefined; status: number; challenge: string | undefined }
  | {
      kind: 'deprecated-call'
      upstream: string
      operation: string
      stage: string
      deprecatedAt: number | undefined
      sunsetAt: number | undefined
      link: string | undefined
    }
  | { kind: 'unknown-operation'; upstream: string; method: string }
  | { kind: 'config-reload'; result: 'success' | 'failure' }
  | { kind: 'warning'; about: string; message: string }

/** Why a token was asked for. */
export type TokenReason = 'cold' | 'expired' | 'rejected' | 'operator' | 'warm'

export type Report = (event: Event) => void
