import type { Clock } from './clock.ts'
import type { Report } from './events.ts'

/** What every room is handed besides its options: time, chance and a place to report. Tests hand in their own. */
export type Tools = {
  readonly clock: Clock
  /** Uniform in [0, 1). */
  readonly random: () => number
  readonly report: Report
}

/** The same, for a room that works for one upstream. */
export type UpstreamTools = Tools & { readonly upstream: string }
