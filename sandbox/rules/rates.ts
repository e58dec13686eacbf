import type { Bench, Call, Rule } from '../call.ts'

export type RateRuleOptions = {
  readonly clause: string
  readonly windows: readonly { readonly count: number; readonly windowMs: number }[]
  readonly keyOf?: (call: Call) => string
}

/** The rate rule, and what a gateway needs to throttle: whether a key is over, and how long until it is not. */
export type Rates = Rule & {
  overMs(call: Call): number | undefined
  /** Calls of this key in the last `windowMs`, this one included. */
  used(call: Call, windowMs: number): number
}

/** No window holds more calls than agreed. Calls turned down count too. */
export function rates(options: RateRuleOptions, bench: Bench): Rates {
  const arrivals = new Map<string, number[]>()
  const longest = Math.max(...options.windows.map((window) => window.windowMs))
  const keyOf = (call: Call): string => `${call.client}\n${options.keyOf?.(call) ?? ''}`

  /** Milliseconds until the window has room again, undefined while it has; `grace` shortens the window. */
  function over(times: readonly number[], now: number, grace: number): number | undefined {
    for (const { count, windowMs } of options.windows) {
      const inside = times.filter((at) => at > now - windowMs + grace)
      const first = inside[inside.length - count - 1]
      if (first !== undefined) return first + windowMs - now
    }
    return undefined
  }

  return {
    arrived(call) {
      const key = keyOf(call)
      const times = [...(arrivals.get(key) ?? []).filter((at) => at > call.at - longest), call.at]
      arrivals.set(key, times)
      // calls spread out when sent may arrive closer together
      if (over(times, call.at, bench.slackMs) !== undefined) {
        bench.note(options.clause, 'S1', call.client, `over ${options.windows.map(({ count, windowMs }) => `${count} in ${windowMs / 1000} s`).join(' or ')}`)
      }
    },
    overMs: (call) => over(arrivals.get(keyOf(call)) ?? [], call.at, bench.slackMs),
    used: (call, windowMs) => (arrivals.get(keyOf(call)) ?? []).filter((at) => at > call.at - windowMs).length,
    forget: () => arrivals.clear()
  }
}
