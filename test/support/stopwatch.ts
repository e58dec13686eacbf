import { readFileSync } from 'node:fs'
import { clearInterval, setInterval } from 'node:timers'

export type Stopwatch = {
  /** Milliseconds so far. */
  ms(): number
  stop(): void
}

const TICK_MS = 2
const MOMENT_MS = 2 * TICK_MS

/**
 * Measures what another process takes of its own: neither the time in which it waits for a processor counts, nor that in
 * which this one does. So a bound holds on a busy machine as on an idle one.
 */
export function stopwatch(pid: number): Stopwatch {
  let ms = 0
  let at = performance.now()
  let delayed = delayMs(pid) ?? 0
  const ticker = setInterval(look, TICK_MS)

  function look(): void {
    const now = performance.now()
    const delay = delayMs(pid) ?? delayed
    ms += Math.max(0, Math.min(now - at, MOMENT_MS) - (delay - delayed))
    at = now
    delayed = delay
  }
  return {
    ms() {
      look()
      return ms
    },
    stop: () => clearInterval(ticker)
  }
}

/** How long a process has waited for a processor, undefined where it is gone or the system does not tell. */
function delayMs(pid: number): number | undefined {
  try {
    return Number(readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ')[1]) / 1_000_000
  } catch (error) {
    if (error instanceof Error && 'code' in error) return undefined
    throw error
  }
}
