import type { Bench, Rule } from '../call.ts'
import { seconds } from './tokens.ts'

export type ConnectionRuleOptions = {
  /** A call held open too long. */
  readonly held: string
  readonly heldMs: number
  /** A connection kept for nothing. */
  readonly idle: string
}

/** A call that is not answered is given up in time, an unused connection is closed. */
export function connections(options: ConnectionRuleOptions, bench: Bench): Rule {
  const open = new Map<number, { at: number; client: string; timer: { cancel(): void } }>()
  return {
    arrived(call) {
      const timer = bench.clock.after(options.heldMs + bench.slackMs, () => {
        bench.note(options.held, 'S2', call.client, `a call without an answer held open for more than ${seconds(options.heldMs)}`)
      })
      open.set(call.id, { at: call.at, client: call.client, timer })
    },
    answered: (call) => stop(call.id),
    ended: (call) => stop(call.id),
    idle: (client, realMs) => bench.note(options.idle, 'S2', client, `a connection unused for ${seconds(realMs)} (real time)`)
  }

  function stop(id: number): void {
    open.get(id)?.timer.cancel()
    open.delete(id)
  }
}
