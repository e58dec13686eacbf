import type { Bench, Rule } from '../call.ts'
import { seconds } from './tokens.ts'

export type ConnectionRuleOptions = {
  /** A call held open too long. */
  readonly held: string
  readonly heldMs: number
  /** A connection kept for nothing. */
  readonly idle: string
  /** A new connection for every call. */
  readonly unused: string
}

type Habit = { newest: number; endedAt: number; row: number }

// real time: calls this close together could have shared a connection
const CLOSE_MS = 1000
const MOST_NEW_IN_A_ROW = 10

/** A call that is not answered is given up in time, a connection is used again, an unused one is closed. */
export function connections(options: ConnectionRuleOptions, bench: Bench): Rule {
  const waiting = new Map<string, { cancel(): void }>()
  const habits = new Map<string, Habit>()
  let underWay = 0

  function start(key: string, client: string, what: string): void {
    const timer = bench.clock.after(options.heldMs + bench.slackMs, () => {
      bench.note(options.held, 'S2', client, `${what} without an answer held open for more than ${seconds(options.heldMs)}`)
    })
    waiting.set(key, timer)
  }
  function stop(key: string): void {
    waiting.get(key)?.cancel()
    waiting.delete(key)
  }
  function habitOf(client: string): Habit {
    const habit = habits.get(client) ?? { newest: 0, endedAt: -Infinity, row: 0 }
    habits.set(client, habit)
    return habit
  }

  return {
    arrived(call) {
      start(`call ${call.id}`, call.client, 'a call')
      const habit = habitOf(call.client)
      const couldHaveShared = underWay++ === 0 && call.at - habit.endedAt < CLOSE_MS * bench.clock.speed
      habit.row = couldHaveShared && call.connection > habit.newest ? habit.row + 1 : 0
      habit.newest = Math.max(habit.newest, call.connection)
      if (habit.row === MOST_NEW_IN_A_ROW) bench.note(options.unused, 'S3', call.client, `${MOST_NEW_IN_A_ROW} calls in a row, each on a new connection`)
    },
    answered: (call) => stop(`call ${call.id}`),
    dropped(call) {
      habitOf(call.client).row = 0
    },
    ended(call) {
      stop(`call ${call.id}`)
      underWay--
      habitOf(call.client).endedAt = bench.clock.now()
    },
    tokenOpened: (id, client) => start(`token ${id}`, client, 'a token request'),
    tokenEnded: (id) => stop(`token ${id}`),
    idle: (client, realMs) => bench.note(options.idle, 'S2', client, `a connection unused for ${seconds(realMs)} (real time)`),
    forget: () => habits.clear()
  }
}
