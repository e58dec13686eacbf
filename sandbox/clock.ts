/**
 * The sandbox's time. Providers live in provider time: with `speed` 60, one real second is a provider minute, and every
 * lifetime, window and wait below is counted in it. Two things stay real: the calendar (`Date`, `iat`, `exp`) and
 * sockets. Intervals inside one answer (`expires_in`, `Retry-After`, `Sunset` minus `Date`) are provider time.
 */
export type SandboxClock = {
  readonly speed: number
  /** Provider milliseconds since the sandbox started; never goes back. */
  now(): number
  /** Real milliseconds since the epoch. */
  wallNow(): number
  /** Calls `fire` after `ms` of provider time; does not keep the process alive. */
  after(ms: number, fire: () => void): { cancel(): void }
  /** The same in real time, for sockets. */
  afterReal(ms: number, fire: () => void): { cancel(): void }
}

// node fires timers beyond 2^31-1 ms at once
const LONGEST_TIMER_MS = 2 ** 31 - 1

/** The real thing; `speed` is how many provider seconds pass in a real one, `realNow` gives real milliseconds from any beginning. */
export function sandboxClock(speed = 1, realNow: () => number = () => performance.now()): SandboxClock {
  const startedAt = realNow()

  function afterReal(ms: number, fire: () => void): { cancel(): void } {
    const timer = setTimeout(fire, Math.min(Math.max(0, ms), LONGEST_TIMER_MS)).unref()
    return { cancel: () => clearTimeout(timer) }
  }
  return {
    speed,
    now: () => (realNow() - startedAt) * speed,
    wallNow: () => Date.now(),
    after: (ms, fire) => afterReal(ms / speed, fire),
    afterReal
  }
}
