import type { Bench, Rule, TokenAsk } from '../call.ts'
import type { Token } from '../tokens.ts'

export type TokenRuleOptions = {
  /** Asked again although the last token was young. */
  readonly early: string
  /** Asked while another request was under way, for more tokens than an hour allows, or in a loop of rejections. */
  readonly flood: string
  /** A refused credential tried again and again. */
  readonly refused: string
  /** A failed token request repeated without waiting. */
  readonly backoff: string
  /** The share of its lifetime a token has to be used. */
  readonly floor: number
  /** The least gap after each token request in a row that the service could not serve; a longer `Retry-After` counts instead. */
  readonly ladderMs: readonly number[]
}

type Asker = {
  /** When the last request was answered: one that arrived before asked although another was under way. */
  answeredAt: number
  last: Token | undefined
  lastForcedAt: number | undefined
  /** Tokens of the last hour; what the service could not serve, and answers that were lost, are not the client's doing. */
  issued: Token[]
  notBefore: number
  /** Requests in a row the service could not serve. */
  failures: number
  refusals: number
}

const MINUTE_MS = 60_000
const HOUR_MS = 3_600_000
const MOST_REFUSALS = 3

/** One token per lifetime: not early, not twice at once, not in a loop, not after a final no. */
export function tokens(options: TokenRuleOptions, bench: Bench): Rule {
  const askers = new Map<string, Asker>()

  function askerOf(ask: TokenAsk): Asker {
    const key = `${ask.client}\n${ask.subject}`
    const known = askers.get(key)
    if (known !== undefined) return known
    const fresh = { answeredAt: -1, last: undefined, lastForcedAt: undefined, issued: [], notBefore: 0, failures: 0, refusals: 0 }
    askers.set(key, fresh)
    return fresh
  }

  /** The token was turned down by the provider, so a new one is due early; but not every second. */
  function forced(ask: TokenAsk, asker: Asker): void {
    const since = asker.lastForcedAt === undefined ? Infinity : ask.at - asker.lastForcedAt
    if (since < MINUTE_MS - bench.slackMs) bench.note(options.flood, 'S1', ask.client, `a second forced renewal after ${seconds(since)}`)
    asker.lastForcedAt = ask.at
  }

  return {
    tokenAsked(ask) {
      const asker = askerOf(ask)
      const { last } = asker
      if (ask.at < asker.notBefore - bench.hairMs)
        bench.note(options.backoff, 'S1', ask.client, `token request ${seconds(asker.notBefore - ask.at)} too soon after a failed one`)
      if (asker.refusals >= MOST_REFUSALS) bench.note(options.refused, 'S1', ask.client, `refused credential tried once more after ${asker.refusals} refusals`)
      if (ask.at < asker.answeredAt) bench.note(options.flood, 'S1', ask.client, 'token request while another one was under way')
      else if (last !== undefined && !last.lost && ask.at < last.expiresAt) {
        const used = (ask.at - last.askedAt) / last.lifetimeMs
        if (last.rejectedAt !== undefined) forced(ask, asker)
        else if (ask.at < last.askedAt + options.floor * last.lifetimeMs - bench.slackMs) {
          bench.note(
            options.early,
            'S1',
            ask.client,
            `token request at ${Math.round(used * 100)} % of the lifetime, ${Math.round(options.floor * 100)} % agreed`
          )
        }
      }
    },
    tokenIssued(ask, token) {
      const asker = askerOf(ask)
      asker.answeredAt = bench.clock.now()
      asker.last = token
      asker.issued = [...asker.issued.filter((known) => !known.lost && known.askedAt > ask.at - HOUR_MS), token].slice(-1000)
      const most = Math.ceil(HOUR_MS / (options.floor * token.lifetimeMs)) + 2
      if (asker.issued.length > most) bench.note(options.flood, 'S1', ask.client, `${asker.issued.length} tokens in an hour, ${most} would do`)
      asker.refusals = 0
      asker.failures = 0
      asker.notBefore = 0
    },
    tokenRefused(ask, refusal) {
      const asker = askerOf(ask)
      asker.answeredAt = bench.clock.now()
      if (refusal.kind === 'final') asker.refusals++
      asker.failures = refusal.kind === 'later' ? asker.failures + 1 : 0
      const step = options.ladderMs[Math.min(asker.failures, options.ladderMs.length) - 1] ?? 0
      asker.notBefore = bench.clock.now() + Math.max(step, refusal.retryAfterMs ?? 0)
    }
  }
}

export function seconds(ms: number): string {
  return Number.isFinite(ms) ? `${(ms / 1000).toFixed(1)} s` : 'never'
}
