import { retryAfterMs, type Bench, type Call, type Rule } from '../call.ts'
import { seconds } from './tokens.ts'

export type WaitRuleOptions = {
  /** A call inside `Retry-After`. */
  readonly retryAfter: string
  /** The pause due after a status without `Retry-After`: its clause and milliseconds; so many calls may look in between. */
  readonly byStatus?: { readonly pauses: Readonly<Record<number, readonly [clause: string, ms: number]>>; readonly probes: number }
  /** Whose pause it is, besides the client's: an organisation, say. */
  readonly keyOf?: (call: Call) => string
}

type Pause = { since: number; until: number; connection: number; clause: string; left: number }

/** A pause the provider asked for is a pause for everybody behind that client. */
export function waits(options: WaitRuleOptions, bench: Bench): Rule {
  const pauses = new Map<string, Pause>()
  const keyOf = (call: Call): string => `${call.client}\n${options.keyOf?.(call) ?? ''}`

  return {
    arrived(call) {
      const pause = pauses.get(keyOf(call))
      if (pause === undefined) return
      if (call.at >= pause.until - bench.hairMs) return void pauses.delete(keyOf(call))
      // on another connection it may have been sent before our answer was read
      if (call.connection !== pause.connection && call.at < pause.since + bench.slackMs) return
      if (pause.left-- > 0) return
      bench.note(
        pause.clause,
        'S1',
        call.client,
        `${call.method} ${call.operation?.template ?? 'unknown'} ${seconds(pause.until - call.at)} before the pause was over`
      )
    },
    answered(call, answer) {
      if (answer.status !== 429 && answer.status !== 503) return
      const now = bench.clock.now()
      const asked = retryAfterMs(answer, bench.clock)
      const usual = options.byStatus?.pauses[answer.status]
      const length = asked ?? usual?.[1]
      if (length === undefined) return
      const known = pauses.get(keyOf(call))
      if (known !== undefined && known.until > now + length) return
      const clause = asked === undefined ? (usual?.[0] ?? options.retryAfter) : options.retryAfter
      pauses.set(keyOf(call), {
        since: now,
        until: now + length,
        connection: call.connection,
        clause,
        left: asked === undefined ? (options.byStatus?.probes ?? 0) : 0
      })
    },
    forget: () => pauses.clear()
  }
}
