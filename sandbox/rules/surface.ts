import type { Bench, Rule } from '../call.ts'

export type SurfaceRuleOptions = {
  /** A call to something that does not exist. */
  readonly unknown: string
  /** Walking through all there is, one by one. */
  readonly enumeration: { readonly clause: string; readonly distinct: number; readonly windowMs: number }
}

/** Only operations that exist are called, and nobody reads the whole database one entity at a time. */
export function surface(options: SurfaceRuleOptions, bench: Bench): Rule {
  const walks = new Map<string, { since: number; seen: Set<string> }>()
  return {
    arrived(call) {
      const { operation } = call
      if (operation === undefined) return bench.note(options.unknown, 'S1', call.client, `${call.method} of a path that does not exist`)
      if (call.method !== 'GET' || !operation.template.includes('{')) return
      const key = `${call.client}\n${operation.template}`
      const walk = walks.get(key)
      if (walk === undefined || call.at > walk.since + options.enumeration.windowMs) return void walks.set(key, { since: call.at, seen: new Set([call.path]) })
      if (walk.seen.has(call.path) || walk.seen.size > options.enumeration.distinct) return
      walk.seen.add(call.path)
      if (walk.seen.size > options.enumeration.distinct) {
        bench.note(options.enumeration.clause, 'S2', call.client, `more than ${options.enumeration.distinct} different ${operation.template} read one by one`)
      }
    },
    forget: () => walks.clear()
  }
}
