import type { Bench, Call, Rule } from '../call.ts'

export type BudgetRuleOptions = {
  readonly clause: string
  readonly statuses: readonly number[]
  readonly count: number
  readonly windowMs: number
  keyOf?(call: Call): string
}

/** Answers that say "your mistake" stay rare. */
export function budget(options: BudgetRuleOptions, bench: Bench): Rule {
  const mistakes = new Map<string, number[]>()
  return {
    answered(call, answer) {
      if (!options.statuses.includes(answer.status)) return
      const now = bench.clock.now()
      const key = `${call.client}\n${options.keyOf?.(call) ?? ''}`
      const recent = [...(mistakes.get(key) ?? []).filter((at) => at > now - options.windowMs), now].slice(-options.count - 1)
      mistakes.set(key, recent)
      if (recent.length > options.count)
        bench.note(options.clause, 'S1', call.client, `more than ${options.count} answers ${options.statuses.join(', ')} in ${options.windowMs / 1000} s`)
    },
    forget: () => mistakes.clear()
  }
}
