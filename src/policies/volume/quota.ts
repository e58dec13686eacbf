import type { Rate } from '../../exchange/options.ts'
import { Window, type Leaving } from './window.ts'

/** One limit for one key. Units are taken one at a time, each at the moment its attempt is sent. */
export type Quota = {
  /** Whether a unit can be taken at this very moment, without asking anybody. */
  has(now: number): boolean
  take(now: number): void
  /** Clock time from which on `units` more can be taken, as far as is known here; now where they can be already. */
  freeAt(now: number, units: number): number
  /** Gets units for `wanted` callers where `freeAt` says that there are some but `has` says no. */
  refill(wanted: number): Promise<void>
  /** What is used of the limit, 0 to 1. */
  usedRatio(now: number): number
  /** Whether forgetting it would lose nothing. */
  isIdle(now: number): boolean
}

/** A limit that only this process uses and that need not survive it. */
export class LocalQuota implements Quota {
  readonly #count: number
  readonly #window: Window

  constructor(rate: Rate, guardMs: number) {
    this.#count = rate.count
    this.#window = new Window(rate, guardMs)
  }

  has(now: number): boolean {
    return this.#window.used(now) < this.#count
  }

  take(now: number): void {
    this.#window.record(now)
  }

  freeAt(now: number, units: number): number {
    return freeAfter({ used: this.#window.used(now), units, count: this.#count, stayMs: this.#window.stayMs }, now, this.#window.leaving())
  }

  refill(): Promise<void> {
    return Promise.resolve()
  }

  usedRatio(now: number): number {
    return ratio(this.#window.used(now), this.#count)
  }

  isIdle(now: number): boolean {
    return this.#window.used(now) === 0
  }
}

/**
 * The time at which `units` more can have been taken of a limit of `count`, of which `used` are used; `leaving` says when
 * those leave, sorted by time. More units than the limit has are taken in turns, one for each that has left again.
 */
export function freeAfter(limit: { used: number; units: number; count: number; stayMs: number }, now: number, leaving: Iterable<Leaving>): number {
  const { used, units, count, stayMs } = limit
  if (count === 0) return Infinity
  const turns = Math.floor((units - 1) / count)
  const surplus = used + units - turns * count - count
  return turns * stayMs + leavesAfter(surplus, now, leaving)
}

function leavesAfter(surplus: number, now: number, leaving: Iterable<Leaving>): number {
  let left = 0
  if (surplus <= 0) return now
  for (const { at, count } of leaving) {
    left += count
    if (left >= surplus) return at
  }
  return Infinity
}

export function ratio(used: number, count: number): number {
  return count === 0 ? 1 : used / count
}
