import type { Rate } from '../../exchange/options.ts'

const BUCKETS = 60

/** Something that leaves the window again: how much, and from which clock time on. */
export type Leaving = { readonly at: number; readonly count: number }

/**
 * What was used in the last `windowMs` (and `guardMs` more), in sixty buckets that are forgotten whole and late: whatever
 * moment one looks at, no window of that length holds more than was counted here. Takes memory for what it holds only.
 */
export class Window {
  readonly #widthMs: number
  readonly #spanMs: number
  // oldest first: number of the bucket, what is in it
  readonly #numbers: number[] = []
  readonly #counts: number[] = []
  #used = 0

  /** `guardMs` allows for calls that arrive a little later than they were sent, and others that do not. */
  constructor(rate: Pick<Rate, 'windowMs'>, guardMs: number) {
    this.#widthMs = rate.windowMs / BUCKETS
    this.#spanMs = rate.windowMs + guardMs
  }

  used(now: number): number {
    while (this.#numbers.length > 0 && this.#endOf(0) + this.#spanMs <= now) {
      this.#numbers.shift()
      this.#used -= this.#counts.shift() as number
    }
    return this.#used
  }

  record(now: number): void {
    const number = this.#numberAt(now)
    let after = this.#numbers.length
    while (after > 0 && (this.#numbers[after - 1] as number) > number) after -= 1
    if (after > 0 && this.#numbers[after - 1] === number) this.#counts[after - 1] = (this.#counts[after - 1] as number) + 1
    else {
      this.#numbers.splice(after, 0, number)
      this.#counts.splice(after, 0, 1)
    }
    this.#used += 1
  }

  /** What was recorded at `from` may have arrived as late as `to`, and counts from then on; nothing where it has left already. */
  postpone(from: number, to: number): void {
    const index = this.#numbers.indexOf(this.#numberAt(from))
    if (index === -1) return
    this.#counts[index] = (this.#counts[index] as number) - 1
    this.#used -= 1
    this.record(to)
  }

  /** The longest a unit stays. */
  get stayMs(): number {
    return this.#widthMs + this.#spanMs
  }

  /** When what is in it leaves, soonest first. */
  *leaving(): Generator<Leaving> {
    for (let i = 0; i < this.#numbers.length; i++) yield { at: this.#endOf(i) + this.#spanMs, count: this.#counts[i] as number }
  }

  #numberAt(at: number): number {
    return Math.floor(at / this.#widthMs)
  }

  #endOf(index: number): number {
    return ((this.#numbers[index] as number) + 1) * this.#widthMs
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
