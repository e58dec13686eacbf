import type { Timer } from '../../exchange/clock.ts'
import { Line } from '../../exchange/line.ts'
import type { Request } from '../../exchange/message.ts'
import type { Tools } from '../../exchange/tools.ts'

/** How somebody got through: freely, first after a pause, or following the first. */
export type Pass = { readonly kind: 'free' | 'probe' | 'follower' }

/** What came of an attempt: the provider asked for a pause, answered, or gave no sign either way. */
export type Verdict = { readonly kind: 'wait'; readonly ms: number } | { readonly kind: 'wait-again' } | { readonly kind: 'fine' } | { readonly kind: 'none' }

type State =
  | { readonly kind: 'open' }
  | { readonly kind: 'closed'; readonly until: number; readonly pauseMs: number }
  | { readonly kind: 'probing'; readonly pauseMs: number; readonly probe: Pass }
  | { readonly kind: 'releasing'; readonly pauseMs: number; readonly released: number }

const FREE: Pass = { kind: 'free' }
const FOLLOWER: Pass = { kind: 'follower' }

// The first follower waits 100 ms on average, each one after a tenth less, down to 5: a herd becomes a ramp.
const FIRST_GAP_MS = 100
const LAST_GAP_MS = 5
const GAP_FACTOR = 0.9

/** Milliseconds until the next follower after `released` others: half to one and a half times the pace of the ramp. */
export function gapMs(released: number, chance: number): number {
  return Math.max(LAST_GAP_MS, FIRST_GAP_MS * GAP_FACTOR ** released) * (0.5 + chance)
}

/**
 * One gate: open, closed until the provider's time has passed, then open to a single probe, and after its success to
 * everybody who waited, one after the other. A closed gate never opens early.
 */
export class Turnstile {
  readonly #tools: Pick<Tools, 'clock' | 'random'>
  readonly #line = new Line<Pass>()
  #state: State = { kind: 'open' }
  #timer: Timer | undefined

  constructor(tools: Pick<Tools, 'clock' | 'random'>) {
    this.#tools = tools
  }

  get isOpen(): boolean {
    return this.#state.kind === 'open'
  }

  get waiting(): number {
    return this.#line.length
  }

  /** Clock time before which nobody gets through; 0 where that is not known to be in the future. */
  get until(): number {
    return this.#state.kind === 'closed' ? this.#state.until : 0
  }

  /** A pass at once, or a promise of one for whoever has to wait. */
  enter(request: Request): Pass | Promise<Pass> {
    const state = this.#state
    if (state.kind === 'open') return FREE
    if (state.kind === 'closed' && state.until <= this.#tools.clock.now() && this.#line.length === 0) return this.#probe(state.pauseMs)
    return this.#line.join(request)
  }

  /** Whether a pass is still good for somebody who has not gone yet. */
  isGood(pass: Pass): boolean {
    switch (this.#state.kind) {
      case 'open':
        return true
      case 'probing':
        return this.#state.probe === pass
      case 'releasing':
        return pass.kind === 'follower'
      case 'closed':
        return false
    }
  }

  /** What came of a pass. Whoever it was, a provider that asks for a pause gets it; only the probe can end one. */
  leave(pass: Pass, verdict: Verdict): void {
    const isProbe = this.#state.kind === 'probing' && this.#state.probe === pass
    switch (verdict.kind) {
      case 'wait':
        return this.close(this.#tools.clock.now() + verdict.ms, verdict.ms)
      case 'wait-again':
        return isProbe && this.#state.kind === 'probing' ? this.close(this.#tools.clock.now() + this.#state.pauseMs, this.#state.pauseMs) : undefined
      case 'fine':
        return isProbe ? this.open() : undefined
      case 'none':
        return isProbe ? this.postpone(pass, 0) : undefined
    }
  }

  /** Nobody gets through before `until`; a pause under way is only ever made longer. */
  close(until: number, pauseMs: number): void {
    const state = this.#state
    if (state.kind === 'closed' && state.until >= until) return
    this.#become({ kind: 'closed', until, pauseMs })
    this.#wakeAt(until)
  }

  /** The probe was not made, or told nothing: the next in line has its turn after `ms`. */
  postpone(pass: Pass, ms: number): void {
    if (this.#state.kind !== 'probing' || this.#state.probe !== pass) return
    const until = this.#tools.clock.now() + ms
    this.#become({ kind: 'closed', until, pauseMs: this.#state.pauseMs })
    this.#wakeAt(until)
  }

  /** The pause is over: whoever waits follows, jittered and paced. */
  open(): void {
    if (this.#state.kind === 'open' || this.#state.kind === 'releasing') return
    if (this.#line.length === 0) return this.#become({ kind: 'open' })
    this.#become({ kind: 'releasing', pauseMs: this.#state.pauseMs, released: 0 })
    this.#pace(0)
  }

  dismiss(reasonFor: (request: Request) => unknown): void {
    this.#line.dismiss(reasonFor)
  }

  #probe(pauseMs: number): Pass {
    const probe: Pass = { kind: 'probe' }
    this.#become({ kind: 'probing', pauseMs, probe })
    return probe
  }

  #become(state: State): void {
    this.#timer?.cancel()
    this.#timer = undefined
    this.#state = state
  }

  #wakeAt(at: number): void {
    this.#timer = this.#tools.clock.after(at - this.#tools.clock.now(), this.#wake)
  }

  readonly #wake = (): void => {
    const state = this.#state
    if (state.kind === 'releasing') return this.#release(state.pauseMs, state.released)
    if (state.kind !== 'closed') return undefined
    // a timer may fire a moment early
    if (state.until > this.#tools.clock.now()) return this.#wakeAt(state.until)
    // with nobody waiting it stays closed, and whoever comes first is the probe
    if (this.#line.length > 0) this.#line.next(this.#probe(state.pauseMs))
    return undefined
  }

  #release(pauseMs: number, released: number): void {
    this.#line.next(FOLLOWER)
    if (this.#line.length === 0) return this.#become({ kind: 'open' })
    this.#become({ kind: 'releasing', pauseMs, released: released + 1 })
    return this.#pace(released + 1)
  }

  #pace(released: number): void {
    this.#wakeAt(this.#tools.clock.now() + gapMs(released, this.#tools.random()))
  }
}
