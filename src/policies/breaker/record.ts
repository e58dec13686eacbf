import type { UpstreamTools } from '../../exchange/tools.ts'
import type { Lock, Store } from '../../state/store.ts'

/** `until` is clock time, `Infinity` while an operator holds the breaker open; `pauseMs` is what the next pause grows from. */
export type Persisted = { readonly until: number; readonly pauseMs: number }

const REFRESH_MS = 1000

/** What the store remembers of one upstream's breaker. Costs nothing where the store is memory, which nobody shares. */
export type BreakerRecord = {
  /** To be awaited before the first request; undefined later on, when it is read in the background at most once a second. */
  refresh(): Promise<void> | undefined
  save(state: Persisted, ttlMs?: number): void
  forget(): void
  /** The turn to probe: `taken` where another replica has it, undefined where nobody else could. */
  lock(ttlMs: number): Promise<Lock | 'taken' | undefined>
  /** Lets something finish in the background. */
  settle(work: Promise<unknown>): void
}

/** `adopt` is told what was found each time the record has been read. */
export function breakerRecord(tools: UpstreamTools & { store: Store }, adopt: (found: Persisted | undefined) => void): BreakerRecord {
  const { clock, report, store, upstream } = tools
  const key = `breaker:${upstream}`
  const isShared = store.kind !== 'memory'
  let state: { kind: 'unread' } | { kind: 'reading'; done: Promise<void> } | { kind: 'read'; at: number } = { kind: 'unread' }
  let isWriting = false

  function settle(work: Promise<unknown>): void {
    // the store degrades to memory by itself; a breaker that is only remembered here still does its work
    work.catch(() => report({ kind: 'warning', about: 'breaker', message: `the state of ${upstream} could not be kept or read` }))
  }

  async function read(): Promise<void> {
    const bytes = await store.get(key)
    // what we are about to write is newer than what was read
    if (!isWriting) adopt(bytes === undefined ? undefined : parse(bytes))
  }

  async function firstRead(): Promise<void> {
    try {
      await read()
    } catch (cause) {
      settle(Promise.reject(cause))
    }
    state = { kind: 'read', at: clock.now() }
  }

  function write(work: Promise<unknown>): void {
    isWriting = true
    settle(work.finally(() => (isWriting = false)))
  }

  return {
    settle,
    refresh() {
      if (!isShared) return undefined
      const now = clock.now()
      switch (state.kind) {
        case 'unread':
          state = { kind: 'reading', done: firstRead() }
          return state.done
        case 'reading':
          return state.done
        case 'read':
          if (now - state.at < REFRESH_MS) return undefined
          state = { kind: 'read', at: now }
          settle(read())
      }
      return undefined
    },
    save(state, ttlMs) {
      if (!isShared) return
      const value = Buffer.from(JSON.stringify({ until: state.until === Infinity ? 'held' : state.until, pauseMs: state.pauseMs }))
      write(store.put(key, value, ttlMs === undefined ? {} : { ttlMs }))
    },
    forget() {
      if (isShared) write(store.delete(key))
    },
    async lock(ttlMs) {
      if (!isShared) return undefined
      try {
        return (await store.lock(`breaker-probe:${upstream}`, ttlMs)) ?? 'taken'
      } catch (cause) {
        settle(Promise.reject(cause))
        return undefined
      }
    }
  }
}

function parse(bytes: Buffer): Persisted | undefined {
  try {
    const { until, pauseMs } = JSON.parse(bytes.toString()) as { until?: unknown; pauseMs?: unknown }
    if (typeof pauseMs !== 'number') return undefined
    if (until === 'held') return { until: Infinity, pauseMs }
    return typeof until === 'number' ? { until, pauseMs } : undefined
  } catch {
    // written by another version: as good as nothing
    return undefined
  }
}
