import { isRepeatable, isTransient, retryAfterMs, type Bench, type Call, type Rule } from '../call.ts'
import { callKey } from './repeats.ts'
import { seconds } from './tokens.ts'

export type RetryRuleOptions = {
  readonly spacing: string
  /** Where the agreement asks for a number of attempts. */
  readonly attempts?: { readonly clause: string; readonly least: number }
  readonly ladderMs: readonly number[]
  /** So many failures in a row and the caller may rightly fall silent. */
  readonly silenceAfter: number
}

type Chain = { client: string; what: string; failures: number; failedAt: number; connection: number; crowded: boolean; promisedMs: number }

// after this long without another attempt the caller has given up
const PATIENCE_MS = 300_000
// the shortest timeout an agreement speaks of: who hangs up before it has left, who hangs up after it has waited
const LEAST_TIMEOUT_MS = 25_000
const MOST_CHAINS = 10_000

/**
 * The ladder: an operation that failed is asked again no sooner than agreed, and as often as agreed.
 *
 * The provider cannot tell a retry from another user of the same app asking the same thing a moment later, and does not
 * try: both are the same call again. Calls that were under way together are told apart.
 */
export function retries(options: RetryRuleOptions, bench: Bench): Rule {
  const chains = new Map<string, Chain>()
  const underWay = new Map<string, number>()
  const crowded = new Set<number>()
  const inARow = new Map<string, number>()

  function failed(call: Call, promisedMs: number | undefined): void {
    const row = (inARow.get(call.client) ?? 0) + 1
    inARow.set(call.client, row)
    const key = callKey(call)
    const failures = (chains.get(key)?.failures ?? 0) + 1
    chains.delete(key)
    if (row >= options.silenceAfter) return forgetClient(call.client)
    if (failures >= (options.attempts?.least ?? 3) || !isRepeatable(call)) return
    if (chains.size >= MOST_CHAINS) chains.clear()
    chains.set(key, {
      client: call.client,
      what: `${call.method} ${call.operation?.template ?? 'unknown'}`,
      failures,
      failedAt: bench.clock.now(),
      connection: call.connection,
      crowded: crowded.has(call.id),
      promisedMs: promisedMs ?? 0
    })
  }

  function forgetClient(client: string): void {
    for (const [key, chain] of chains) if (chain.client === client) chains.delete(key)
  }

  return {
    arrived(call) {
      const key = callKey(call)
      const together = underWay.get(key) ?? 0
      underWay.set(key, together + 1)
      if (together > 0) crowded.add(call.id)
      const chain = chains.get(key)
      if (chain === undefined) return
      const gap = call.at - chain.failedAt
      const mayHaveBeenSentBefore = (chain.crowded || together > 0) && call.connection !== chain.connection && gap < bench.slackMs
      const step = options.ladderMs[Math.min(chain.failures, options.ladderMs.length) - 1] ?? 0
      if (gap < step - bench.hairMs && !mayHaveBeenSentBefore) {
        bench.note(options.spacing, 'S2', call.client, `${chain.what} again ${seconds(gap)} after failure ${chain.failures}, ${seconds(step)} agreed`)
      }
    },
    answered(call, answer) {
      if (isTransient(answer.status)) return failed(call, retryAfterMs(answer, bench.clock))
      inARow.set(call.client, 0)
      chains.delete(callKey(call))
    },
    dropped(call, { byCaller }) {
      // who hangs up early has left; who hangs up late, or was dropped by us, has a failure to ask again about
      if (!byCaller || bench.clock.now() - call.at >= LEAST_TIMEOUT_MS) failed(call, undefined)
    },
    ended(call) {
      const key = callKey(call)
      const together = (underWay.get(key) ?? 1) - 1
      if (together <= 0) underWay.delete(key)
      else underWay.set(key, together)
      crowded.delete(call.id)
    },
    settle() {
      const now = bench.clock.now()
      for (const [key, chain] of chains) {
        if (now < chain.failedAt + PATIENCE_MS + chain.promisedMs) continue
        chains.delete(key)
        const least = options.attempts
        if (least !== undefined && chain.failures < least.least) {
          bench.note(least.clause, 'S2', chain.client, `${chain.what} given up after ${chain.failures} of ${least.least} attempts`)
        }
      }
    },
    forget() {
      chains.clear()
      inARow.clear()
    }
  }
}
