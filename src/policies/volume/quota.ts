import type { Rate } from '../../exchange/options.ts'
import type { Tools } from '../../exchange/tools.ts'
import type { Store } from '../../state/store.ts'
import { Window, freeAfter } from './window.ts'

/** What is known of an epoch that is over: reserved here and not given back, reserved by others as last read. */
type Epoch = { readonly number: number; readonly own: number; others: number; isFinal: boolean }

const EPOCHS_PER_WINDOW = 4
// Blocks are small shares of a limit: what one replica has in hand the others cannot use. Those of large limits are large,
// so that the store is not asked at every turn.
const BLOCKS_PER_LIMIT = 16
const SMALL_BLOCK = 64
const LARGEST_SHARE = 1 / 1024
const LARGEST_BLOCK = 4096
// After the store has said that nothing is left, nobody asks again for this share of the window.
const ASK_AGAIN_SHARE = 0.005
// By this share of the next epoch replicas have given back what they did not use of the last.
const FINAL_AFTER_SHARE = 0.1

/**
 * One limit for one key, of which units are taken one at a time, each at the moment its attempt is sent. Replicas share
 * it, and it survives restarts, `kill -9` included: units are reserved in the store before they are used, in blocks, so
 * that most attempts ask nobody.
 *
 * Time is cut into epochs of a quarter window, each with one counter of everything reserved in it. Whoever adds to the
 * counter of the running epoch may use what stays below the limit, less what others reserved in the epochs the window
 * reaches back to, less what was used here. Units are only used in the epoch they were reserved in; what is left over is
 * given back when it ends. A process that dies takes its block with it, which counts as used.
 */
export class Quota {
  readonly #key: string
  readonly #rate: Rate
  readonly #tools: Pick<Tools, 'clock' | 'report'> & { store: Store }
  readonly #guardMs: number
  readonly #spanMs: number
  readonly #window: Window
  #past: Epoch[] = []
  #epoch: number
  #othersNow = 0
  #reserved = 0
  #inHand = 0
  #emptyUntil = 0
  #refilling: Promise<void> | undefined
  #givingBack: Promise<void> | undefined

  constructor(key: string, rate: Rate, guardMs: number, tools: Pick<Tools, 'clock' | 'report'> & { store: Store }) {
    this.#key = key
    this.#rate = rate
    this.#tools = tools
    this.#guardMs = guardMs
    this.#spanMs = rate.windowMs + guardMs
    this.#window = new Window(rate, guardMs)
    this.#epoch = this.#epochAt(tools.clock.now())
  }

  /** Whether a unit can be taken at this very moment, without asking anybody. */
  has(now: number): boolean {
    this.#roll(now)
    return this.#inHand > 0
  }

  take(now: number): void {
    this.#inHand -= 1
    this.#window.record(now)
    // ahead of need, where there is something to be had; small limits are not worth a unit that may go to waste
    if (this.#block > 1 && this.#inHand * 2 < this.#block && this.#refilling === undefined && this.freeAt(now, this.#inHand + 1) <= now) void this.refill(1)
  }

  /** A unit taken at `takenAt` reached the provider by `arrivedBy` at the latest: later than allowed for, it counts from then on. */
  arrived(takenAt: number, arrivedBy: number): void {
    const by = Math.min(arrivedBy, takenAt + this.#rate.windowMs)
    if (by - takenAt > this.#guardMs) this.#window.postpone(takenAt, by)
  }

  /** Clock time from which on `units` more can be taken, as far as is known here; now where they can be already. */
  freeAt(now: number, units: number): number {
    this.#roll(now)
    if (this.#inHand >= units) return now
    const used = this.#usedByAll(now)
    const leaving = [...this.#window.leaving(), ...this.#past.map(({ number, others }) => ({ at: this.#leavesAt(number), count: others }))]
    leaving.push({ at: this.#leavesAt(this.#epoch), count: this.#othersNow })
    leaving.sort((a, b) => a.at - b.at)
    const { count } = this.#rate
    const at = freeAfter({ used, units, count, stayMs: this.#window.stayMs }, now, leaving)
    // others may give back what they did not use: worth asking then, if it is sooner
    const soonest = used + units > count ? Math.min(at, this.#givenBackAt()) : at
    return Math.max(now, this.#emptyUntil, soonest)
  }

  /** When others may have given back what they reserved and did not use. */
  #givenBackAt(): number {
    let epoch = this.#othersNow > 0 ? this.#epoch : Infinity
    for (const { number, others, isFinal } of this.#past) if (others > 0 && !isFinal) epoch = Math.min(epoch, number)
    return this.#finalAt(epoch)
  }

  /** Gets units for so many callers, where `freeAt` says that there are some but `has` says no. Never rejects. */
  refill(wanted: number): Promise<void> {
    this.#refilling ??= this.#reserve(wanted).finally(() => (this.#refilling = undefined))
    return this.#refilling
  }

  /** What is used of the limit, 0 to 1. */
  usedRatio(now: number): number {
    return this.#rate.count === 0 ? 1 : this.#usedByAll(now) / this.#rate.count
  }

  /** Gives back what is in hand, before it is forgotten here; what was used stays in the store. */
  close(): void {
    if (this.#inHand > 0) this.#giveBack(this.#epoch, this.#inHand)
    this.#inHand = 0
  }

  async #reserve(wanted: number): Promise<void> {
    const { clock } = this.#tools
    this.#roll(clock.now())
    const epoch = this.#epoch
    const asked = Math.max(this.#block, Math.min(wanted, SMALL_BLOCK))
    try {
      await this.#givingBack
      const [total] = await Promise.all([this.#add(epoch, asked), this.#readPast(epoch)])
      if (epoch === this.#epoch) this.#othersNow = Math.max(0, total - asked - this.#reserved)
    } catch {
      this.#failed()
    }
    const now = clock.now()
    this.#roll(now)
    // too late to use any
    if (epoch !== this.#epoch) return this.#giveBack(epoch, asked)
    const room = this.#rate.count - this.#usedByAll(now) - this.#inHand
    const granted = Math.max(0, Math.min(asked, room))
    if (granted < asked) this.#giveBack(epoch, asked - granted)
    this.#reserved += granted
    this.#inHand += granted
    if (this.#inHand === 0) this.#emptyUntil = now + this.#rate.windowMs * ASK_AGAIN_SHARE
    return undefined
  }

  /** Nobody adds to an epoch that is over, so one look is enough, once what was left over has been given back. */
  async #readPast(running: number): Promise<void> {
    const now = this.#tools.clock.now()
    const reads: Promise<void>[] = []
    for (let number = running - 1; this.#leavesAt(number) > now; number--) {
      const known = this.#past.find((epoch) => epoch.number === number) ?? this.#remember({ number, own: 0, others: 0, isFinal: false })
      if (!known.isFinal) reads.push(this.#read(known, now >= this.#finalAt(number)))
    }
    await Promise.all(reads)
  }

  async #read(epoch: Epoch, isFinal: boolean): Promise<void> {
    epoch.others = Math.max(0, (await this.#add(epoch.number, 0)) - epoch.own)
    epoch.isFinal = isFinal
  }

  #remember(epoch: Epoch): Epoch {
    this.#past.push(epoch)
    return epoch
  }

  /** Ends the running epoch where its time is over, and forgets those the window no longer reaches. */
  #roll(now: number): void {
    const current = this.#epochAt(now)
    if (current === this.#epoch) return
    if (this.#inHand > 0) this.#giveBack(this.#epoch, this.#inHand)
    this.#remember({ number: this.#epoch, own: this.#reserved - this.#inHand, others: this.#othersNow, isFinal: false })
    this.#past = this.#past.filter(({ number }) => this.#leavesAt(number) > now)
    this.#epoch = current
    this.#othersNow = 0
    this.#reserved = 0
    this.#inHand = 0
    this.#emptyUntil = 0
  }

  #giveBack(epoch: number, count: number): void {
    // the value of each would hold those of all before it
    this.#givingBack = Promise.allSettled([this.#givingBack, this.#add(epoch, -count).catch(() => this.#failed())]).then(() => undefined)
  }

  #add(epoch: number, count: number): Promise<number> {
    return this.#tools.store.add(`${this.#key}:${epoch}`, count, 2 * this.#epochMs + this.#spanMs)
  }

  #failed(): void {
    this.#tools.report({ kind: 'warning', about: 'volume', message: 'the store does not count; limits are kept by this process alone' })
  }

  /** Used by anybody in the window, as far as is known here. */
  #usedByAll(now: number): number {
    let sum = this.#othersNow + this.#window.used(now)
    for (const { others } of this.#past) sum += others
    return sum
  }

  get #block(): number {
    const { count } = this.#rate
    const largest = Math.min(LARGEST_BLOCK, Math.max(SMALL_BLOCK, Math.floor(count * LARGEST_SHARE)))
    return Math.min(largest, Math.max(1, Math.floor(count / BLOCKS_PER_LIMIT)))
  }

  get #epochMs(): number {
    return this.#rate.windowMs / EPOCHS_PER_WINDOW
  }

  #epochAt(now: number): number {
    return Math.floor(now / this.#epochMs)
  }

  #finalAt(epoch: number): number {
    return (epoch + 1 + FINAL_AFTER_SHARE) * this.#epochMs
  }

  #leavesAt(epoch: number): number {
    return (epoch + 1) * this.#epochMs + this.#spanMs
  }
}
