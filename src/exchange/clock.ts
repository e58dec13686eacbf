import type { Signal } from './signal.ts'

/** A timer that can be pushed back to its full length or called off. */
export type Timer = { refresh(): void; cancel(): void }

/**
 * Time, through the door: nobody else reads the clock or sets a timer.
 *
 * Under `--speed N` one real second counts N seconds here, for `now`, `sleep` and `after` alike, so that policies need
 * not know. `wallNow` is the calendar (real time): for dates exchanged with others (`Date`, `iat`, certificate dates).
 */
export type Clock = {
  /** Milliseconds since the epoch, in scaled time, comparable over restarts at the same speed. Never goes back. */
  now(): number
  /** Milliseconds since the epoch, real time. */
  wallNow(): number
  /** Resolves after `ms` of scaled time; rejects with the signal's reason as soon as it is aborted. */
  sleep(ms: number, signal?: Signal): Promise<void>
  /** Calls `fire` once after `ms` of scaled time, not before what has arrived by then is read; does not keep the process alive. */
  after(ms: number, fire: () => void): Timer
  /** Scaled milliseconds as real ones, for the few APIs that keep time themselves. */
  realMs(ms: number): number
}

// node fires timers beyond 2^31-1 ms at once; nothing here waits longer than that in one go
const LONGEST_TIMER_MS = 2 ** 31 - 1

// Any fixed date serves: scaled time has to run on from the same origin after a restart, so that stored times keep their meaning.
const SCALE_ORIGIN_MS = Date.UTC(2026, 0, 1)

/** The process's clock; `speed` is how many scaled seconds pass in a real one. */
export function systemClock(speed = 1): Clock {
  // A wall clock stepped by NTP must not lengthen or shorten a token's life: durations run on the monotonic clock.
  const startedAt = Date.now()
  const startedMonotonic = performance.now()

  function now(): number {
    const real = startedAt + (performance.now() - startedMonotonic)
    return speed === 1 ? real : SCALE_ORIGIN_MS + (real - SCALE_ORIGIN_MS) * speed
  }
  function realMs(ms: number): number {
    return ms / speed
  }
  function after(ms: number, fire: () => void): Timer {
    return new PatientTimer(Math.min(Math.max(0, realMs(ms)), LONGEST_TIMER_MS), fire)
  }
  // not `after`: a sleep keeps the process alive
  const sleep = sleepOn((ms, fire) => {
    const timer = setTimeout(fire, Math.min(Math.max(0, realMs(ms)), LONGEST_TIMER_MS))
    return { cancel: () => clearTimeout(timer) }
  })
  return { now, wallNow: Date.now, sleep, after, realMs }
}

/** The `sleep` of a clock, on whatever calls back after a while. */
export function sleepOn(start: (ms: number, fire: () => void) => Pick<Timer, 'cancel'>): Clock['sleep'] {
  return function sleep(ms, signal) {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason)
      const timer = start(ms, () => {
        signal?.removeEventListener('abort', stop)
        resolve()
      })
      function stop(): void {
        timer.cancel()
        reject(signal?.reason)
      }
      signal?.addEventListener('abort', stop, { once: true })
      return undefined
    })
  }
}

/**
 * Timers come before the poll phase: after a pause of the process they would fire although what they wait for has arrived
 * and only waits to be read. So this one fires behind it. A class, because every attempt has one.
 */
class PatientTimer implements Timer {
  readonly #fire: () => void
  readonly #timer: NodeJS.Timeout
  #late: NodeJS.Immediate | undefined

  constructor(ms: number, fire: () => void) {
    this.#fire = fire
    this.#timer = setTimeout(PatientTimer.#due, ms, this).unref()
  }

  static #due(timer: PatientTimer): void {
    timer.#late = setImmediate(timer.#fire)
  }

  refresh(): void {
    if (this.#late !== undefined) clearImmediate(this.#late)
    this.#timer.refresh()
  }

  cancel(): void {
    if (this.#late !== undefined) clearImmediate(this.#late)
    clearTimeout(this.#timer)
  }
}

/** The process's chance, uniform in [0, 1): for jitter, never for secrets. */
export const systemRandom: () => number = Math.random
