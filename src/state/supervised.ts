import type { Tools } from '../exchange/tools.ts'
import { Unavailable } from './backend.ts'

/** Opens the place anew; calls `lost` when it goes away by itself later. Rejects where it cannot be had. */
export type Open<Place> = (lost: (cause: unknown) => void, attempt: 'first' | 'again') => Promise<Place>

export type SupervisedOptions<Place> = {
  readonly open: Open<Place>
  /** Makes good on a place just opened what it may have missed; it is used only when nothing is left to be made good. */
  readonly settle: (place: Place) => Promise<void>
  /** Names the place in warnings, as their `about`. */
  readonly about: string
  /** Said of a failure that has no words of its own. */
  readonly unexpected: string
  /** What an outage means for the operator. */
  readonly consequence: string
}

/** A place outside the process that may fail, and the way to use it while it does not. */
export type Supervised<Place> = {
  /** Does the work where the place is there, else `instead`: at once while it is down, after the failure otherwise. */
  attempt<T>(work: (place: Place) => Promise<T>, instead: () => T | Promise<T>): Promise<T>
  isClosed(): boolean
  close(): Promise<void>
}

type State<Place> = { kind: 'up'; place: Place; since: number } | { kind: 'down' } | { kind: 'closed' }

// All in real milliseconds: the place outside does not run faster under --speed.
const FIRST_PROBE_MS = 100
const SLOWEST_PROBE_MS = 2_000
const STEADY_AFTER_MS = 5_000
const WARN_EVERY_MS = 60_000

/**
 * Watches over a place: the first call that fails takes it down, a probe every 100 ms to 2 s (real time) finds out when it
 * is back. Resolves when it has been tried once; never rejects. An outage is one `warning` event, at most one a minute.
 */
export async function supervised<Place extends { close(): unknown }>(options: SupervisedOptions<Place>, tools: Tools): Promise<Supervised<Place>> {
  const { clock } = tools
  let state: State<Place> = { kind: 'down' }
  let probeMs = FIRST_PROBE_MS
  let warnedAt = -Infinity

  const inClockTime = (realMs: number): number => realMs / clock.realMs(1)

  function warn(cause: unknown): void {
    const now = clock.now()
    if (now - warnedAt < inClockTime(WARN_EVERY_MS)) return
    warnedAt = now
    const why = cause instanceof Unavailable ? cause.message : options.unexpected
    tools.report({ kind: 'warning', about: options.about, message: `${why}; ${options.consequence}` })
  }

  function goDown(lost: Place, cause: unknown): void {
    // Many calls fail together, and some on a connection that was replaced long ago: only the first one counts.
    if (state.kind !== 'up' || state.place !== lost) return
    if (clock.now() - state.since > inClockTime(STEADY_AFTER_MS)) probeMs = FIRST_PROBE_MS
    state = { kind: 'down' }
    warn(cause)
    void lost.close()
    probeLater()
  }

  function probeLater(): void {
    clock.after(inClockTime(probeMs * (0.75 + tools.random() / 4)), () => void connect('again'))
    probeMs = Math.min(probeMs * 2, SLOWEST_PROBE_MS)
  }

  async function connect(attempt: 'first' | 'again'): Promise<void> {
    if (isClosed()) return
    let place: Place | undefined
    let lostBefore: Unavailable | undefined
    try {
      place = await options.open((cause) => {
        if (place !== undefined) goDown(place, cause)
        lostBefore ??= cause instanceof Unavailable ? cause : new Unavailable(options.unexpected, cause)
      }, attempt)
      await options.settle(place)
      if (lostBefore !== undefined) throw lostBefore
    } catch (cause) {
      void place?.close()
      if (isClosed()) return
      warn(cause)
      probeLater()
      return
    }
    if (isClosed()) return void place.close()
    state = { kind: 'up', place, since: clock.now() }
  }

  // A function, because the state may have changed during an await, which the compiler cannot see.
  function isClosed(): boolean {
    return state.kind === 'closed'
  }

  async function attempt<T>(work: (place: Place) => Promise<T>, instead: () => T | Promise<T>): Promise<T> {
    if (state.kind !== 'up') return instead()
    const { place } = state
    try {
      return await work(place)
    } catch (cause) {
      goDown(place, cause)
      return instead()
    }
  }

  await connect('first')

  return {
    attempt,
    isClosed,
    async close() {
      const last = state
      state = { kind: 'closed' }
      if (last.kind === 'up') await last.place.close()
    }
  }
}
