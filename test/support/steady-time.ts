import { setImmediate, setInterval } from 'node:timers'
import type { SandboxClock } from '../../sandbox/clock.ts'
import { sleepOn, type Clock, type Timer } from '../../src/exchange/clock.ts'

/**
 * Real time for what lives in this process, less what a busy machine takes of it: however long the process is not allowed
 * to run, no more than a moment has passed. So nobody is late for anything because others use the processor.
 */
export type SteadyTime = {
  /** The sidecar's clock at this speed. */
  sidecarClock(speed: number): Clock
  /** The sandbox's clock at this speed. */
  sandboxClock(speed: number): SandboxClock
  /** Real milliseconds that have passed. */
  now(): number
  /** Resolves after so many milliseconds of this time. */
  sleep(ms: number): Promise<void>
  /** From here on no time passes, but for what is passed by hand, until `go`. */
  stop(): void
  go(): void
  /** Moves time on at once and calls what falls due. */
  pass(ms: number): void
  close(): void
}

const TICK_MS = 2
// what passes between two looks at the clock while nothing holds the process up
const MOMENT_MS = 2 * TICK_MS

type Entry = { at: number; readonly fire: () => void }

export function steadyTime(): SteadyTime {
  const startedAt = Date.now()
  const entries = new Set<Entry>()
  let seenAt = performance.now()
  let passed = 0
  let isStopped = false
  // behind the poll phase, as the process's own clock: what has arrived by then is read first
  const ticker = setInterval(() => setImmediate(tick), TICK_MS)

  function now(): number {
    const real = performance.now()
    if (!isStopped) passed += Math.min(real - seenAt, MOMENT_MS)
    seenAt = real
    return passed
  }
  function tick(): void {
    const at = now()
    const due = [...entries].filter((entry) => entry.at <= at).toSorted((a, b) => a.at - b.at)
    for (const entry of due) if (entries.delete(entry)) entry.fire()
  }
  function after(ms: number, fire: () => void): Timer {
    const entry: Entry = { at: now() + ms, fire }
    entries.add(entry)
    return {
      refresh() {
        entry.at = now() + ms
        entries.add(entry)
      },
      cancel: () => void entries.delete(entry)
    }
  }
  const sleep = sleepOn(after)
  const wallNow = (): number => startedAt + now()

  return {
    now,
    sleep,
    sidecarClock: (speed) => ({
      now: () => startedAt + now() * speed,
      wallNow,
      sleep: (ms, signal) => sleep(ms / speed, signal),
      after: (ms, fire) => after(ms / speed, fire),
      realMs: (ms) => ms / speed
    }),
    sandboxClock: (speed) => ({
      speed,
      now: () => now() * speed,
      wallNow,
      after: (ms, fire) => after(ms / speed, fire),
      afterReal(ms, fire) {
        const timer = setTimeout(fire, ms).unref()
        return { cancel: () => clearTimeout(timer) }
      }
    }),
    stop() {
      now()
      isStopped = true
    },
    go() {
      now()
      isStopped = false
    },
    pass(ms) {
      passed += ms
      tick()
    },
    close: () => clearInterval(ticker)
  }
}
