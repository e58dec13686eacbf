import { randomBytes } from 'node:crypto'
import { collect } from '../exchange/collect.ts'
import { discard } from '../exchange/message.ts'
import { Problem } from '../exchange/problem.ts'
import { reusedKey } from '../exchange/idempotency-key.ts'
import { carrier } from './carrier.ts'
import { TakenOver, journal, type Entry } from './journal.ts'
import { bodyOf, bytesOf, outcomeOf, type Progress } from './outcome.ts'
import { room } from './room.ts'
import { Stopped, newTrace, runOf, type OperationsTools, type Run, type Settled } from './run.ts'

const LONGEST_ANSWER_BYTES = 1024 * 1024
const KEEP_MS = 24 * 3_600_000
const REPLICA_PREFIX = 'operations-replica/'
// Real time, these three: whether a process is alive does not depend on --speed.
const CLOSING_MS = 5_000
const HEARTBEAT_MS = 5_000
const HEARTBEAT_TTL_MS = 15_000

export type Runs = ReturnType<typeof runs>

/** Carries out requests apart from their callers, over restarts and, with a shared store, over replicas. */
export function runs(tools: OperationsTools) {
  const { clock, report, store, upstreamOf } = tools
  const records = journal(store, tools.sealKey, clock.now)
  const replica = `${process.pid}-${randomBytes(9).toString('base64url')}`
  const live = new Map<string, Run>()
  const held = room(clock)
  const { carryOut, stepMs } = carrier(tools, async (run, state) => {
    if (run.isKept) await records.mark(run.entry, { owner: replica, ...state }, run.fence)
  })
  let isClosing = false
  let heartbeat: { cancel(): void } | undefined
  let saidAliveAt = -Infinity

  const realMs = (ms: number): number => ms / clock.realMs(1)

  /**
   * Takes an operation into the journal, durably, and lets it go on by itself. Resolves false where the same one (by its
   * Idempotency-Key) is there already. Rejects with `upstream-wait` where there is no room, `draining`, or 422.
   */
  async function keep(run: Run, carried: () => Promise<Settled>): Promise<boolean> {
    const { entry } = run
    const before = live.get(entry.id)
    if (before !== undefined) {
      if (before.entry.fingerprint !== entry.fingerprint) throw reusedKey()
      await before.accepting
      return false
    }
    if (isClosing) throw new Problem('draining')
    held.claim(entry.id, entry.upstream, bytesOf(run.body).length, upstreamOf(entry.upstream)?.options.async)
    live.set(entry.id, run)
    run.accepting = accept(run, carried)
    await run.accepting
    return true
  }

  async function accept(run: Run, carried: () => Promise<Settled>): Promise<void> {
    try {
      await sayAlive()
      const { attempts } = run.trace
      await records.accept(run.entry, bytesOf(run.body), { owner: replica, isSending: false, attempts, lastTryAt: clock.now() })
    } catch (error) {
      held.release(run.entry.id)
      live.delete(run.entry.id)
      throw error
    }
    run.isKept = true
    run.concluded = conclude(run, carried())
  }

  /** Waits for the end of a kept run and writes it down. */
  async function conclude(run: Run, carried: Promise<Settled>): Promise<Settled | undefined> {
    const { entry } = run
    try {
      const settled = await outcome(run, carried)
      if (settled === 'cancelled') {
        await release(entry.id)
        return undefined
      }
      await write(entry, settled, run.fence)
      return settled
    } catch (error) {
      held.release(entry.id)
      if (!(error instanceof TakenOver || error instanceof Stopped)) {
        report({ kind: 'warning', about: entry.upstream, message: 'the outcome of a background operation could not be kept' })
      }
      return undefined
    } finally {
      live.delete(entry.id)
    }
  }

  async function outcome(run: Run, carried: Promise<Settled>): Promise<Settled | 'cancelled'> {
    try {
      return await gathered(await carried, run.entry)
    } catch (error) {
      if (!(error instanceof Stopped && error.why === 'cancelled')) throw error
      if (run.entry.isRepeatable || run.phase === 'waiting') return 'cancelled'
      return unknownOutcome('was cancelled while being sent')
    }
  }

  async function gathered(settled: Settled, entry: Entry): Promise<Settled> {
    if (settled.kind === 'problem') return settled
    const { answer } = settled
    try {
      return { kind: 'answer', answer: { ...answer, body: await collect(answer.body, LONGEST_ANSWER_BYTES) } }
    } catch (error) {
      if (error instanceof Stopped) throw error
      // the status alone says whether it was carried out
      if (!entry.isRepeatable) return settled
      return { kind: 'problem', problem: error instanceof Problem ? error : new Problem('upstream-protocol', { detail: 'the answer broke off', cause: error }) }
    }
  }

  async function write(entry: Entry, settled: Settled, fence: number): Promise<void> {
    const { upstream, requestId } = entry
    const of = upstreamOf(upstream)
    const isProblem = settled.kind === 'problem'
    const answer = isProblem ? tools.problemAnswer(settled.problem, { upstream, requestId }) : settled.answer
    const kept = outcomeOf(entry, answer, isProblem, of?.door, clock.now() + (of?.options.async.keep ?? KEEP_MS))
    await records.end(entry.id, kept.outcome, kept.body, fence)
    held.hold(entry.id, upstream, kept.body.length, kept.outcome.keptUntil)
  }

  function release(id: string): Promise<void> {
    held.release(id)
    return records.forget(id)
  }

  function progressOf(run: Run): Progress {
    const now = clock.now()
    const nextTryAt = Math.max(run.nextTryAt, run.trace.nextTryAt ?? 0)
    return {
      id: run.entry.id,
      state: run.phase === 'waiting' || nextTryAt > now ? 'waiting' : 'running',
      attempt: run.trace.attempts,
      ...(nextTryAt > now ? { nextTryAt: new Date(clock.wallNow() + clock.realMs(nextTryAt - now)).toISOString() } : {})
    }
  }

  /** Takes up what the journal holds and nobody carries out: after a restart all of it, in a shared store what dead replicas left. */
  async function adopt(): Promise<void> {
    const remains = await records.list()
    const owners = remains.size === 0 ? [] : await store.keys(REPLICA_PREFIX)
    const alive = new Set(owners.map((key) => key.slice(REPLICA_PREFIX.length)).filter((owner) => store.kind === 'redis' || isNeighbour(owner)))
    for (const [id, { hasRequest, hasOutcome, isCancelled }] of remains) {
      const run = live.get(id)
      if (run !== undefined && isCancelled) run.controller.abort(new Stopped('cancelled'))
      if (isClosing || run !== undefined || held.has(id)) continue
      if (hasOutcome) await remember(id)
      else if (hasRequest) await takeUp(id, alive, isCancelled)
    }
  }

  async function remember(id: string): Promise<void> {
    const kept = await records.outcome(id)
    if (kept !== undefined) held.hold(id, kept.outcome.upstream, kept.body.length, kept.outcome.keptUntil)
  }

  async function takeUp(id: string, alive: ReadonlySet<string>, isCancelled: boolean): Promise<void> {
    const state = await records.state(id)
    const kept = alive.has(state.owner) ? undefined : await records.request(id)
    const fence = kept === undefined ? undefined : await records.take(kept.entry, state, replica)
    if (kept === undefined || fence === undefined) return undefined
    const { entry, body } = kept
    if (isCancelled && (entry.isRepeatable || !state.isSending)) return release(id)
    if (state.isSending && !entry.isRepeatable) return write(entry, unknownOutcome('was being sent when attache stopped'), fence)
    // an attempt that was cut off does not count as the last one: its outcome is not known
    const attempts = Math.min(state.attempts, (upstreamOf(entry.upstream)?.options.retry.attempts ?? 1) - 1)
    const run = runOf(entry, bodyOf(body), newTrace(attempts))
    if (attempts > 0) run.nextTryAt = state.lastTryAt + stepMs(entry)
    held.hold(id, entry.upstream, body.length)
    live.set(id, run)
    run.isKept = true
    run.fence = fence
    run.concluded = conclude(run, carryOut(run))
    void run.concluded.then(dropRest)
    return undefined
  }

  /** Takes up what an earlier process left, and goes on looking after what others leave. */
  async function resume(): Promise<void> {
    try {
      if (store.kind === 'redis' || live.size > 0) await sayAlive()
      await adopt()
    } catch (error) {
      report({ kind: 'warning', about: 'state', message: `background operations could not be looked after: ${error instanceof Error ? error.name : 'error'}` })
    }
    if (!isClosing && store.kind !== 'memory') heartbeat = clock.after(realMs(HEARTBEAT_MS), () => void resume())
  }

  async function sayAlive(): Promise<void> {
    if (store.kind === 'memory' || clock.now() - saidAliveAt < realMs(HEARTBEAT_MS)) return
    saidAliveAt = clock.now()
    await store.put(REPLICA_PREFIX + replica, Buffer.from('1'), { ttlMs: realMs(HEARTBEAT_TTL_MS) })
  }

  /** After a reload: what waits does so in the new chain. */
  function refresh(): void {
    for (const run of live.values()) if (progressOf(run).state === 'waiting') run.controller.abort(new Stopped('reloaded'))
  }

  /** Stops; what waits is left to the next start, what is being sent and must not be sent twice has a moment to end. */
  async function close(): Promise<void> {
    isClosing = true
    heartbeat?.cancel()
    const ending = Promise.all([...live.values()].map((run) => run.accepting.then(() => run.concluded)))
    for (const run of live.values()) if (run.entry.isRepeatable || run.phase === 'waiting') run.controller.abort(new Stopped('closing'))
    const { promise: enough, resolve } = Promise.withResolvers<void>()
    const timer = clock.after(realMs(CLOSING_MS), resolve)
    await Promise.race([ending, enough])
    timer.cancel()
    for (const run of live.values()) run.controller.abort(new Stopped('closing'))
    await ending
    await store.delete(REPLICA_PREFIX + replica)
  }

  return { records, live, keep, carryOut, progressOf, resume, refresh, close, release }
}

/** Throws away what of an outcome was too large to keep. */
export function dropRest(settled: Settled | undefined): void {
  if (settled?.kind === 'answer') discard(settled.answer.body)
}

/**
 * Whether the process that wrote this name still runs beside us. A file is shared on one machine only, so that after a
 * crash nobody has to wait for the sign of life to fade; a pid that is ours by now was another's.
 */
function isNeighbour(owner: string): boolean {
  const pid = Number.parseInt(owner, 10)
  if (pid === process.pid) return false
  try {
    return process.kill(pid, 0)
  } catch (error) {
    // somebody else's process is there all the same
    return error instanceof Error && 'code' in error && error.code === 'EPERM'
  }
}

function unknownOutcome(how: string): Settled {
  const detail = `the request must not be repeated, and it ${how}: ask the provider whether it was carried out`
  return { kind: 'problem', problem: new Problem('outcome-unknown', { detail }) }
}
