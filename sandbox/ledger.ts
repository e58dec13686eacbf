import type { SandboxClock } from './clock.ts'

/** S1 would cost the partner its access, S2 is a breach, S3 is poor manners. */
export type Severity = 'S1' | 'S2' | 'S3'

/** One breach of one clause; `t` is provider milliseconds since the start, `detail` never holds a secret. */
export type Violation = {
  readonly t: number
  readonly rule: string
  readonly severity: Severity
  readonly provider: string
  readonly client: string
  readonly detail: string
}

/** What one provider counted. `unanswered` are calls that ended without an answer (a fault, or the caller left). */
export type Counts = {
  tokenRequests: number
  tokensIssued: number
  tokensRefused: number
  apiCalls: number
  unanswered: number
  bytesIn: number
  answers: Record<string, number>
}

/** One call as the provider saw it, for people: the path without its query, no fields, no bodies. */
export type Seen = {
  readonly t: number
  readonly provider: string
  readonly kind: 'token' | 'api'
  readonly method: string
  readonly path: string
  outcome: string
}

export type Ledger = {
  note(provider: string, rule: string, severity: Severity, client: string, detail: string): void
  counts(provider: string): Counts
  see(seen: Seen): Seen
  /** The journal, oldest first. */
  readonly journal: readonly Seen[]
  snapshot(): { violations: readonly Violation[]; dropped: number; counts: Record<string, Counts> }
  reset(): void
}

const LONGEST_LEDGER = 10_000
const LONGEST_JOURNAL = 2_000

/** The append-only ledger. Beyond 10,000 entries only `dropped` grows. */
export function createLedger(clock: SandboxClock): Ledger {
  let violations: Violation[] = []
  let journal: Seen[] = []
  let dropped = 0
  const counts = new Map<string, Counts>()

  function note(provider: string, rule: string, severity: Severity, client: string, detail: string): void {
    if (violations.length >= LONGEST_LEDGER) dropped++
    else violations.push({ t: Math.round(clock.now()), rule, severity, provider, client, detail })
  }
  function countsOf(provider: string): Counts {
    const known = counts.get(provider)
    if (known !== undefined) return known
    const fresh = { tokenRequests: 0, tokensIssued: 0, tokensRefused: 0, apiCalls: 0, unanswered: 0, bytesIn: 0, answers: {} }
    counts.set(provider, fresh)
    return fresh
  }
  return {
    note,
    counts: countsOf,
    see(seen) {
      if (journal.length >= LONGEST_JOURNAL) journal.shift()
      journal.push(seen)
      return seen
    },
    get journal() {
      return journal
    },
    snapshot: () => ({ violations, dropped, counts: Object.fromEntries(counts) }),
    reset() {
      violations = []
      journal = []
      dropped = 0
      counts.clear()
    }
  }
}
