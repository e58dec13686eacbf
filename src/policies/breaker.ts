import type { Readable } from 'node:stream'
import type { Policy } from '../exchange/chain.ts'
import type { Request } from '../exchange/message.ts'
import { duration, integer, list, section, type Decoded } from '../exchange/options.ts'
import { Problem, isProblem, type ProblemCode } from '../exchange/problem.ts'
import type { UpstreamTools } from '../exchange/tools.ts'
import { SharedRecord } from '../state/shared-record.ts'
import type { Lock, Store } from '../state/store.ts'
import { FailedAnswer, circuit, type Circuit } from './breaker/circuit.ts'
import { cooldownMs, grown } from './breaker/cooldown.ts'

export const breakerOptions = section(
  'After repeated failures nothing at all is sent for a while',
  {
    failures: integer('Consecutive failed attempts that open it', { minimum: 1 }, 5),
    cooldown: duration('First pause', '60s'),
    maxCooldown: duration('The pause doubles up to here', '300s'),
    openOn: list('Statuses that open it at once', integer('Status', { minimum: 500, maximum: 599 }), [])
  },
  {}
)
export type BreakerOptions = Decoded<typeof breakerOptions>

/** The breaker with the handles for an operator and for whoever waits to try again. */
export type Breaker = {
  readonly policy: Policy
  state(): BreakerState
  /** `open` holds it open until told otherwise; `closed` closes it now, failures may open it again; `auto` ends `open` with a probe. */
  set(wanted: 'open' | 'closed' | 'auto'): void
  /** The answer everybody gets now, undefined while an attempt would be made. */
  refusal(): Problem | undefined
  /** Calls back each time it opens; gives the way to stop that. */
  onOpen(listener: () => void): () => void
}

/** `until` is clock time, absent where an operator holds it open. */
export type BreakerState = { readonly kind: 'closed' } | { readonly kind: 'open'; readonly until?: number } | { readonly kind: 'half-open' }

type Generation =
  | { readonly kind: 'closed'; failures: number; successes: number }
  | { readonly kind: 'open'; readonly until: number; readonly pauseMs: number }
  | { readonly kind: 'half-open'; readonly circuit: Circuit; readonly pauseMs: number }

const FAILURES = new Set([500, 502, 503, 504])
const PROVIDERS_FAULTS: readonly ProblemCode[] = ['upstream-unreachable', 'upstream-protocol', 'upstream-timeout']
// How long others are told to stay away while the one probe is under way.
const PROBE_MS = 1000
const PROBE_TURN_MS = 30_000

/**
 * After `failures` consecutive failed attempts nothing is sent for `cooldown`, which doubles up to `maxCooldown` with
 * each probe that fails (lengthened by up to a quarter, never shortened); then exactly one probe goes through.
 *
 * Failures are 500, 502, 503, 504 and attempts that end without a whole answer; not 4xx, nor callers who leave or would not
 * wait, nor our own refusals. Statuses in `openOn` open it at once. Only the probe can close it: answers to attempts from
 * before it opened change nothing. Kept in the store over restarts; replicas that share one open together and take turns
 * with the probe. Rejects with `breaker-open`.
 */
export function breaker(options: BreakerOptions, tools: UpstreamTools & { store: Store }): Breaker {
  const { clock, random, report, upstream } = tools
  const opensAtOnce = new Set(options.openOn)
  const isFailure = (status: number): boolean => FAILURES.has(status) || opensAtOnce.has(status)
  const listeners = new Set<() => void>()
  const record = new SharedRecord(`breaker:${upstream}`, tools, adopt)
  let current: Generation = closed()

  const policy: Policy = async function breaker(request, next) {
    const refreshing = record.refresh()
    if (refreshing !== undefined) await refreshing
    const generation = current.kind === 'closed' ? current : halfOpen()
    const lock = generation.kind === 'half-open' ? await takeTurn(generation) : undefined
    const guarded = { ...request, objection: () => objection(generation, request) }
    try {
      // while closed there is nothing for opossum to decide, and its bookkeeping costs as much as all other policies
      const response = generation.kind === 'closed' ? await next(guarded) : await generation.circuit.fire(guarded, next)
      if (isFailure(response.status)) {
        failed(generation, opensAtOnce.has(response.status))
        return response
      }
      const failuresBefore = generation.kind === 'closed' ? generation.failures : 0
      succeeded(generation)
      if (response.body.kind === 'stream' && generation.kind === 'closed') watchBody(response.body.stream, generation, failuresBefore)
      return response
    } catch (error) {
      if (error instanceof FailedAnswer) {
        failed(generation, opensAtOnce.has(error.response.status))
        return error.response
      }
      if (saysSomethingAboutTheProvider(error, request)) failed(generation, false)
      else undecided(generation)
      throw error
    } finally {
      if (lock !== undefined) record.release(lock)
    }
  }

  /** Whoever waited for a place while it opened stays here; the probe is what it waits for. */
  function objection(generation: Generation, request: Request): Problem | undefined {
    const refused = generation === current ? undefined : refusal()
    if (refused !== undefined) report({ kind: 'call-avoided', upstream, reason: 'breaker' })
    return refused ?? request.objection?.()
  }

  function closed(): Generation {
    return { kind: 'closed', failures: 0, successes: 0 }
  }

  /** Becomes the probe where it is time for one, refuses otherwise. */
  function halfOpen(): Generation & { kind: 'half-open' } {
    const refused = refusal()
    if (refused !== undefined) {
      report({ kind: 'call-avoided', upstream, reason: 'breaker' })
      throw refused
    }
    const probe = { kind: 'half-open', circuit: circuit(isFailure), pauseMs: current.kind === 'open' ? current.pauseMs : 0 } as const
    become(probe)
    return probe
  }

  /** Among replicas only one probes; the others stay open a little longer and see what came of it. */
  async function takeTurn(probe: Generation & { kind: 'half-open' }): Promise<Lock | undefined> {
    const turn = await record.turn(PROBE_TURN_MS)
    if (turn !== 'taken') return turn
    if (current === probe) become({ kind: 'open', until: clock.now() + PROBE_MS, pauseMs: probe.pauseMs })
    report({ kind: 'call-avoided', upstream, reason: 'breaker' })
    throw new Problem('breaker-open', { retryAfterMs: PROBE_MS })
  }

  function succeeded(generation: Generation): void {
    if (generation !== current) return
    if (generation.kind === 'closed') {
      generation.failures = 0
      generation.successes += 1
    } else close()
  }

  /** An answer that breaks off was no success after all: it goes on counting where it would have begun anew, unless another has succeeded meanwhile. */
  function watchBody(body: Readable, generation: Generation & { kind: 'closed' }, failuresBefore: number): void {
    const { successes } = generation
    body.once('error', (error) => {
      if (!isProblem(error, ...PROVIDERS_FAULTS)) return
      if (generation.successes === successes) generation.failures += failuresBefore
      failed(generation, false)
    })
  }

  function failed(generation: Generation, atOnce: boolean): void {
    if (generation !== current) return
    if (generation.kind === 'half-open') return open(grown(generation.pauseMs, options))
    if (generation.kind === 'closed') generation.failures += 1
    if (generation.kind === 'closed' && (atOnce || generation.failures >= options.failures)) open(options.cooldown)
    return undefined
  }

  // the probe came to nothing (its caller left, no volume, …): the next request is the probe
  function undecided(generation: Generation): void {
    if (generation === current && generation.kind === 'half-open') become({ kind: 'open', until: clock.now(), pauseMs: generation.pauseMs })
  }

  function open(pauseMs: number): void {
    const until = clock.now() + cooldownMs(pauseMs, random())
    become({ kind: 'open', until, pauseMs })
    record.save({ until, pauseMs }, until - clock.now() + options.maxCooldown)
  }

  function close(): void {
    become(closed())
    record.forget()
  }

  function become(next: Generation): void {
    const before = current
    current = next
    if (before.kind === 'half-open') before.circuit.retire()
    if (before.kind === next.kind) return
    report({ kind: 'breaker', upstream, state: next.kind })
    if (next.kind === 'open') for (const listener of listeners) listener()
  }

  /** What the store says, at the start and whenever another replica has written. */
  function adopt(value: unknown): void {
    const found = parse(value)
    const isHeldHere = current.kind === 'open' && current.until === Infinity
    if (found === undefined || current.kind === 'half-open' || (current.kind === 'open' && !isHeldHere && current.until >= found.until)) {
      if (found === undefined && isHeldHere) become(closed())
      return
    }
    become({ kind: 'open', until: found.until, pauseMs: found.pauseMs })
  }

  function refusal(): Problem | undefined {
    if (current.kind === 'closed') return undefined
    const leftMs = current.kind === 'half-open' ? PROBE_MS : current.until - clock.now()
    if (leftMs <= 0) return undefined
    return new Problem('breaker-open', {
      retryAfterMs: Math.min(leftMs, options.maxCooldown * 2),
      detail: `${upstream} keeps failing; nothing is sent until it has had a rest`
    })
  }

  function set(wanted: 'open' | 'closed' | 'auto'): void {
    if (wanted === 'closed') return close()
    const isHeld = current.kind === 'open' && current.until === Infinity
    if (wanted === 'auto' && !isHeld) return undefined
    const until = wanted === 'open' ? Infinity : clock.now()
    become({ kind: 'open', until, pauseMs: options.cooldown })
    return wanted === 'open' ? record.save({ until: 'held', pauseMs: options.cooldown }) : record.forget()
  }

  return {
    policy,
    set,
    refusal,
    state() {
      if (current.kind !== 'open') return { kind: current.kind }
      if (current.until === Infinity) return { kind: 'open' }
      return current.until <= clock.now() ? { kind: 'half-open' } : { kind: 'open', until: current.until }
    },
    onOpen(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    }
  }
}

/** As it is kept in the store: `until` is `held` while an operator holds it open. */
function parse(value: unknown): { until: number; pauseMs: number } | undefined {
  if (typeof value !== 'object' || value === null || !('until' in value) || !('pauseMs' in value) || typeof value.pauseMs !== 'number') return undefined
  if (value.until === 'held') return { until: Infinity, pauseMs: value.pauseMs }
  return typeof value.until === 'number' ? { until: value.until, pauseMs: value.pauseMs } : undefined
}

/** Whether a failed attempt counts: the provider did not answer, and it was given the time it has by agreement. */
function saysSomethingAboutTheProvider(error: unknown, request: Request): boolean {
  if (!isProblem(error, ...PROVIDERS_FAULTS)) return false
  if (!request.signal.aborted) return true
  // out of time as a whole: only where the limit is ours and the provider was the one we waited for
  return request.trace.sent && request.wishes.timeoutMs === undefined && request.wishes.waitMs === undefined
}
