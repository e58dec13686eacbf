import { sleepOn, type Clock, type Timer } from '../../src/exchange/clock.ts'

/** A clock that stands still until told to advance; timers fire in order of time as it passes them. */
export type TestClock = Clock & {
  /** Moves time on, firing what falls due, and lets promises settle in between. */
  advance(ms: number): Promise<void>
  /** Sets the calendar apart from the running time (a wrong or stepped wall clock). */
  shiftWall(ms: number): void
  /** How many timers and sleeps are pending. */
  readonly pending: number
}

type Entry = { at: number; fire: () => void; ms: number }

export function testClock(startAt = Date.UTC(2026, 5, 1)): TestClock {
  let now = startAt
  let wallShift = 0
  const entries = new Set<Entry>()

  function after(ms: number, fire: () => void): Timer {
    const entry: Entry = { at: now + Math.max(0, ms), fire, ms: Math.max(0, ms) }
    entries.add(entry)
    return {
      refresh() {
        entry.at = now + entry.ms
        entries.add(entry)
      },
      cancel() {
        entries.delete(entry)
      }
    }
  }

  async function settle(): Promise<void> {
    for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve))
  }

  async function advance(ms: number): Promise<void> {
    const until = now + ms
    await settle()
    for (;;) {
      const due = [...entries].filter((entry) => entry.at <= until).toSorted((a, b) => a.at - b.at)[0]
      if (due === undefined) break
      now = Math.max(now, due.at)
      entries.delete(due)
      due.fire()
      await settle()
    }
    now = until
    await settle()
  }

  return {
    now: () => now,
    wallNow: () => now + wallShift,
    sleep: sleepOn(after),
    after,
    realMs: (ms) => ms,
    advance,
    shiftWall: (ms) => void (wallShift += ms),
    get pending() {
      return entries.size
    }
  }
}
