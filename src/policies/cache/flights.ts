import { LRUCache } from 'lru-cache'
import type { StoredAnswer } from './answer.ts'

/** How a shared flight ended for those who joined it. */
export type Outcome =
  | { readonly kind: 'kept'; readonly answer: StoredAnswer }
  /** What came back was for the one who asked alone. */
  | { readonly kind: 'unshared' }
  | { readonly kind: 'failed' }

/**
 * One request on its way for everybody who wants the same. It belongs to nobody: it has a signal of its own, and ends
 * early only when all who wanted it have left.
 */
export class Flight {
  readonly target: string
  readonly #controller = new AbortController()
  readonly #landed = Promise.withResolvers<Outcome>()
  #wanted = 1

  constructor(target: string) {
    this.target = target
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  /** How many want its outcome, the one who started it included until it leaves. */
  get wanted(): number {
    return this.#wanted
  }

  land(outcome: Outcome): void {
    this.#landed.resolve(outcome)
  }

  /** One who wanted it has gone. */
  leave(reason: unknown): void {
    this.#wanted -= 1
    if (this.#wanted === 0) this.#controller.abort(reason)
  }

  /** Waits for the outcome; a signal that fires abandons the wait, not the flight. */
  join(signal: AbortSignal): Promise<Outcome> {
    if (signal.aborted) return Promise.reject(signal.reason)
    this.#wanted += 1
    const { promise, resolve, reject } = Promise.withResolvers<Outcome>()
    const leave = (): void => {
      reject(signal.reason)
      this.leave(signal.reason)
    }
    signal.addEventListener('abort', leave, { once: true })
    void this.#landed.promise.then((outcome) => {
      signal.removeEventListener('abort', leave)
      resolve(outcome)
    })
    return promise
  }
}

export type Flights = {
  get(key: string): Flight | undefined
  open(key: string, target: string): Flight
  /** Nobody may join any more. */
  close(key: string, flight: Flight): void
  /** What these flights will bring is out of date already: nobody may join them any more. */
  closeTarget(target: string): void
  closePrefix(prefix: string): void
  /** Whether answers under this key turned out lately to be for one caller each: waiting for them is lost time. */
  isUnshared(key: string, now: number): boolean
  remember(key: string, isShared: boolean, now: number): void
}

// How long a key stays marked as not worth waiting for, in clock time.
const UNSHARED_MS = 60_000
const REMEMBERED_BYTES = 1024 * 1024

/** The flights under way in one cache. Bounded by the callers there are. */
export function flights(): Flights {
  const open = new Map<string, Flight>()
  const unshared = new LRUCache<string, number>({ maxSize: REMEMBERED_BYTES, sizeCalculation: (_until, key) => key.length + 128 })

  function closeWhere(isOutdated: (target: string) => boolean): void {
    for (const [key, flight] of open) if (isOutdated(flight.target)) open.delete(key)
  }

  return {
    get: (key) => open.get(key),
    open(key, target) {
      const flight = new Flight(target)
      open.set(key, flight)
      return flight
    },
    close(key, flight) {
      if (open.get(key) === flight) open.delete(key)
    },
    closeTarget: (target) => closeWhere((other) => other === target),
    closePrefix: (prefix) => closeWhere((other) => other.startsWith(prefix)),
    isUnshared: (key, now) => (unshared.get(key) ?? 0) > now,
    remember(key, isShared, now) {
      if (!isShared) unshared.set(key, now + UNSHARED_MS)
      else if (unshared.size > 0) unshared.delete(key)
    }
  }
}
