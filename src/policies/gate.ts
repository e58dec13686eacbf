import type { Policy } from '../exchange/chain.ts'
import type { Request, Response } from '../exchange/message.ts'
import { duration, map, type Decoded } from '../exchange/options.ts'
import { Problem, isProblem } from '../exchange/problem.ts'
import type { UpstreamTools } from '../exchange/tools.ts'
import { SharedRecord } from '../state/shared-record.ts'
import type { Lock, Store } from '../state/store.ts'
import { Turnstile, type Pass, type Verdict } from './gate/turnstile.ts'
import { verdictOn } from './gate/verdict.ts'

export const waitDefaultOptions = map('Gate length by status where the provider sends no Retry-After', duration('Wait'), {})
export type WaitDefaultOptions = Decoded<typeof waitDefaultOptions>

/** The gate of one volume key. */
type Entry = {
  readonly turnstile: Turnstile
  readonly record: SharedRecord
  /** What the store said last: until when the gate is closed for all replicas. */
  known: number | undefined
  /** Held while our probe is under way. */
  turn: Lock | undefined
  underWay: number
  /** What is left of a quota the provider has announced. */
  allowance: { left: number; readonly until: number } | undefined
}

const MOST_KEYS = 10_000
const MOST_WAITING = 1000
const PROBE_TURN_MS = 30_000
// How soon to look again what came of another replica's probe.
const LOOK_AGAIN_MS = 500
// The record outlives the pause, so that its absence means that somebody was let through.
const RECORD_SLACK_MS = 60_000
// What to tell a caller who ran out of time while the first was under way.
const LEAST_WAIT_MS = 1000

/**
 * When the provider says wait (429 or 503 with `Retry-After`, or with the agreement's `waitDefault`), everybody waits:
 * every request to the upstream, or to its volume key. Then one goes first, and when it succeeds the rest follow,
 * jittered and paced; another refusal closes the gate again. A quota that is used up (`RateLimit`, `X-RateLimit-*`)
 * closes it before the provider has to.
 *
 * Callers wait where it fits their deadline and the cache has nothing to give them instead, 1,000 at most, also those who had passed but not gone yet; others get
 * `upstream-wait` with the time that is left. Answers that leave with the gate closed carry `retryAt`. Closed gates are kept in the store over restarts and shared with
 * replicas, of which one goes first.
 */
export function gate(options: WaitDefaultOptions, tools: UpstreamTools & { store: Store; keyOf: (request: Request) => string }): Policy {
  const { clock, report, upstream, keyOf } = tools
  const waitDefault = new Map(Object.entries(options).map(([status, ms]) => [Number(status), ms]))
  const entries = new Map<string, Entry>()
  let waiting = 0

  return async function gate(request, next) {
    const key = keyOf(request)
    const entry = entries.get(key) ?? added(key)
    for (;;) {
      const way = throughGate(entry, request)
      const pass = way instanceof Promise ? await way : way
      let objected: Problem | undefined
      const objection = (): Problem | undefined => (objected = entry.turnstile.isGood(pass) ? undefined : pause(entry))
      entry.underWay += 1
      try {
        const response = await next({ ...request, objection })
        return answered(entry, pass, response)
      } catch (error) {
        left(entry, pass, { kind: 'none' })
        // it had not gone yet when the gate closed: it waits here like everybody
        if (objected === undefined || error !== objected) throw error
      }
    }
  }

  function answered(entry: Entry, pass: Pass, response: Response): Response {
    const { verdict, quota } = verdictOn(response, waitDefault, clock.wallNow())
    left(entry, pass, verdict)
    if (quota !== undefined && quota.remaining > 0) entry.allowance = { left: quota.remaining - entry.underWay, until: clock.now() + quota.resetMs }
    const { until } = entry.turnstile
    return until > 0 && until > clock.now() ? { ...response, retryAt: until } : response
  }

  function added(key: string): Entry {
    makeRoom()
    const record = new SharedRecord(`gate:${upstream}:${key}`, tools, (found) => {
      entry.known = typeof found === 'number' ? found : undefined
      if (entry.known !== undefined && entry.known > entry.turnstile.until) closeUntil(entry, entry.known)
    })
    const entry: Entry = { turnstile: new Turnstile(tools), record, known: undefined, turn: undefined, underWay: 0, allowance: undefined }
    entries.set(key, entry)
    return entry
  }

  // oldest first, those that say nothing before those that would be missed
  function makeRoom(): void {
    if (entries.size < MOST_KEYS) return
    let fallback: string | undefined
    for (const [key, { turnstile, underWay }] of entries) {
      if (turnstile.waiting > 0 || underWay > 0) continue
      fallback ??= key
      if (!turnstile.isOpen) continue
      entries.delete(key)
      return
    }
    if (fallback !== undefined) entries.delete(fallback)
  }

  function throughGate(entry: Entry, request: Request): Pass | Promise<Pass> {
    const reading = entry.record.refresh()
    if (reading !== undefined) return reading.then(() => waitTurn(entry, request))
    spend(entry)
    return entry.turnstile.isOpen ? entry.turnstile.enter(request) : waitTurn(entry, request)
  }

  /** Takes one of what the provider has announced; closes the gate where nothing is left. */
  function spend(entry: Entry): void {
    const { allowance } = entry
    if (allowance === undefined) return
    if (allowance.until <= clock.now()) entry.allowance = undefined
    else if (allowance.left > 0) allowance.left -= 1
    else closeUntil(entry, allowance.until)
  }

  async function waitTurn(entry: Entry, request: Request): Promise<Pass> {
    const { turnstile } = entry
    for (;;) {
      const from = clock.now()
      if (turnstile.until > from && (turnstile.until >= request.deadlineAt || request.standIn?.(pause(entry)) === true)) throw refusal(entry)
      if (!turnstile.isOpen && waiting >= MOST_WAITING) throw refusal(entry)
      waiting += 1
      let pass: Pass
      try {
        pass = await turnstile.enter(request)
      } catch (reason) {
        // out of time while waiting here: the provider was not asked, so it was not slow either
        throw isProblem(reason, 'upstream-timeout') ? refusal(entry) : reason
      } finally {
        waiting -= 1
        request.trace.waitMs += clock.now() - from
      }
      if (pass.kind !== 'probe' || (await mayGoFirst(entry, pass))) return pass
    }
  }

  /** Among replicas only one goes first; the others look a little later what came of it. */
  async function mayGoFirst(entry: Entry, pass: Pass): Promise<boolean> {
    const { turnstile, record } = entry
    const turn = await record.turn(PROBE_TURN_MS)
    if (turn === 'taken') {
      turnstile.postpone(pass, LOOK_AGAIN_MS)
      return false
    }
    await record.reread()
    if (turn !== undefined && turnstile.until > clock.now()) {
      record.release(turn)
      return false
    }
    entry.turn = turn
    // another replica has been let through meanwhile
    if (entry.known === undefined) turnstile.open()
    return true
  }

  function left(entry: Entry, pass: Pass, verdict: Verdict): void {
    const { turnstile, record, turn } = entry
    entry.underWay -= 1
    const before = turnstile.until
    turnstile.leave(pass, verdict)
    if (turnstile.until > Math.max(before, clock.now())) tellClosed(entry)
    else if (pass.kind === 'probe' && verdict.kind === 'fine') {
      record.forget()
      announce()
    }
    if (pass.kind === 'probe' && turn !== undefined) {
      entry.turn = undefined
      record.release(turn)
    }
  }

  function closeUntil(entry: Entry, until: number): void {
    if (until <= clock.now()) return
    entry.turnstile.close(until, until - clock.now())
    tellClosed(entry)
  }

  function tellClosed(entry: Entry): void {
    const { turnstile, record } = entry
    const { until } = turnstile
    if (until !== entry.known) record.save(until, until - clock.now() + RECORD_SLACK_MS)
    entry.known = until
    announce()
    turnstile.dismiss((request) => (until >= request.deadlineAt ? refusal(entry) : undefined))
  }

  // one gauge for the upstream: the gate that stays closed longest
  function announce(): void {
    let until = 0
    for (const { turnstile } of entries.values()) until = Math.max(until, turnstile.until)
    report({ kind: 'gate', upstream, until })
  }

  function refusal(entry: Entry): Problem {
    report({ kind: 'call-avoided', upstream, reason: 'gate' })
    return pause(entry)
  }

  function pause({ turnstile }: Entry): Problem {
    const retryAfterMs = Math.max(LEAST_WAIT_MS, turnstile.until - clock.now())
    return new Problem('upstream-wait', { retryAfterMs, detail: `${upstream} asked for a pause that does not fit the time this request has` })
  }
}
