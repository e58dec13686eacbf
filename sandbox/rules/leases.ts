import type { Bench, Rule } from '../call.ts'
import { seconds } from './tokens.ts'

export type LeaseRuleOptions = { readonly clause: string; readonly template: string; readonly validMs: number }

// most of its life a lent secret has to be used before another one is asked for
const LEAST_USE = 0.7

/** A temporary secret is kept as long as it is good for. */
export function leases(options: LeaseRuleOptions, bench: Bench): Rule {
  const lent = new Map<string, number>()
  return {
    answered(call, answer) {
      // the answer to HEAD lends nothing
      if (call.method !== 'GET' || call.operation?.template !== options.template || answer.status !== 200) return
      const now = bench.clock.now()
      const age = now - (lent.get(call.client) ?? -Infinity)
      if (age < options.validMs * LEAST_USE - bench.slackMs) bench.note(options.clause, 'S1', call.client, `another temporary secret after ${seconds(age)}`)
      lent.set(call.client, now)
    },
    forget: () => lent.clear()
  }
}
