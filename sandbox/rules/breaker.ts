import type { Bench, Call, Rule } from '../call.ts'
import { seconds } from './tokens.ts'

export type BreakerRuleOptions = { readonly clause: string; readonly failures: number; readonly cooldownMs: number }

type State = { kind: 'closed'; row: number } | { kind: 'open'; since: number; connection: number } | { kind: 'probing'; probe: number; since: number }

// who hangs up before any sensible timeout has left; who hangs up later has met a failure
const LEAST_TIMEOUT_MS = 25_000

/** After so many failures in a row: silence for the cooldown, then exactly one call until it has been answered well. */
export function breaker(options: BreakerRuleOptions, bench: Bench): Rule {
  const states = new Map<string, State>()
  const stateOf = (call: Call): State => states.get(call.client) ?? { kind: 'closed', row: 0 }

  function failed(call: Call): void {
    const state = stateOf(call)
    const now = bench.clock.now()
    if (state.kind === 'open' || (state.kind === 'probing' && state.probe !== call.id)) return
    const row = state.kind === 'closed' ? state.row + 1 : options.failures
    states.set(call.client, row >= options.failures ? { kind: 'open', since: now, connection: call.connection } : { kind: 'closed', row })
  }

  return {
    arrived(call) {
      const state = stateOf(call)
      if (state.kind === 'open') {
        const silence = call.at - state.since
        if (silence >= options.cooldownMs - bench.hairMs) return void states.set(call.client, { kind: 'probing', probe: call.id, since: call.at })
        if (call.connection !== state.connection && silence < bench.slackMs) return
        bench.note(
          options.clause,
          'S1',
          call.client,
          `call ${seconds(silence)} after ${options.failures} failures in a row, ${seconds(options.cooldownMs)} of silence agreed`
        )
      } else if (state.kind === 'probing') {
        bench.note(options.clause, 'S2', call.client, 'a second call while the first one after the cooldown was under way')
      }
    },
    answered(call, answer) {
      const state = stateOf(call)
      if (answer.status >= 500) return failed(call)
      // an answer from before the silence says nothing about now
      if (state.kind === 'open' || (state.kind === 'probing' && state.probe !== call.id)) return
      // throttling says nothing about health, but it ends the probe
      if (state.kind === 'closed' && answer.status === 429) return
      states.delete(call.client)
    },
    dropped(call, { byCaller }) {
      if (!byCaller || bench.clock.now() - call.at >= LEAST_TIMEOUT_MS) return failed(call)
      const state = stateOf(call)
      // the prober left: the next call is the probe
      if (state.kind === 'probing' && state.probe === call.id)
        states.set(call.client, { kind: 'open', since: state.since - options.cooldownMs, connection: call.connection })
    },
    forget: () => states.clear()
  }
}
