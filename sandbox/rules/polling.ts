import { field, type Bench, type Rule } from '../call.ts'
import { pathBehindApi } from './caching.ts'
import { seconds } from './tokens.ts'

export type PollingRuleOptions = { readonly clause: string; readonly firstMs: number; readonly mostPolls: number }

type Watch = { client: string; last: number; interval: number; polls: number }

const MOST_WATCHED = 10_000
// jitter and unequal rounding are no reason to complain
const TOLERATED_SHARE = 0.75

/** The `Location` of a 202 is asked with growing gaps, not in a loop. */
export function polling(options: PollingRuleOptions, bench: Bench): Rule {
  const watched = new Map<string, Watch>()
  return {
    arrived(call) {
      const watch = call.method === 'GET' ? watched.get(`${call.client}\n${call.path}`) : undefined
      if (watch === undefined) return
      const interval = call.at - watch.last
      const least = Math.max(options.firstMs, watch.interval * TOLERATED_SHARE)
      if (interval < least - bench.slackMs) bench.note(options.clause, 'S2', call.client, `poll after ${seconds(interval)}, ${seconds(least)} expected`)
      if (++watch.polls === options.mostPolls + 1) bench.note(options.clause, 'S2', call.client, `more than ${options.mostPolls} polls of one operation`)
      watch.interval = Math.max(watch.interval, interval)
      watch.last = call.at
    },
    answered(call, answer) {
      const location = field(answer.fields, 'location')
      if (answer.status === 202 && call.method !== 'GET' && location !== undefined) {
        watched.set(`${call.client}\n${pathBehindApi(location)}`, { client: call.client, last: bench.clock.now(), interval: 0, polls: 0 })
        const oldest = watched.keys().next().value
        if (watched.size > MOST_WATCHED && oldest !== undefined) watched.delete(oldest)
      } else if (call.method === 'GET' && answer.status !== 202 && answer.status !== 404 && answer.status < 500) {
        watched.delete(`${call.client}\n${call.path}`)
      }
    },
    forget: () => watched.clear()
  }
}
