import type { Tools } from '../exchange/tools.ts'
import type { Lock, Store } from './store.ts'

const REFRESH_MS = 1000

/**
 * A small JSON record that outlives the process and is shared by replicas, for a room that works from its own memory and
 * must not wait for the store: read once before the first use, then in the background at most once a second, written in
 * the background. Costs nothing where the store is memory, which nobody shares.
 */
export type SharedRecord = {
  /** To be awaited before the first use; undefined later on. */
  refresh(): Promise<void> | undefined
  /** Reads it now, e.g. before a decision that replicas must not take twice. */
  reread(): Promise<void>
  save(value: unknown, ttlMs?: number): void
  forget(): void
  /** A turn that only one replica has at a time: `taken` where another has it, undefined where there are no others. */
  lock(ttlMs: number): Promise<Lock | 'taken' | undefined>
  /** Gives a turn back, in the background. */
  release(lock: Lock): void
}

/** `adopt` is told what was found each time the record has been read; undefined where there is none that can be read. */
export function sharedRecord(key: string, tools: Pick<Tools, 'clock' | 'report'> & { store: Store }, adopt: (found: unknown) => void): SharedRecord {
  const { clock, report, store } = tools
  const isShared = store.kind !== 'memory'
  let state: { kind: 'unread' } | { kind: 'reading'; done: Promise<void> } | { kind: 'read'; at: number } = { kind: 'unread' }
  let writes = 0

  function failed(): void {
    // what is only remembered here still does its work; the store falls back to memory by itself
    report({ kind: 'warning', about: 'state', message: `${key} could not be read or kept` })
  }

  async function reread(): Promise<void> {
    if (!isShared) return
    const writesBefore = writes
    try {
      const bytes = await store.get(key)
      // what was written meanwhile is newer than what was read
      if (writes === writesBefore) adopt(bytes === undefined ? undefined : parse(bytes))
    } catch {
      failed()
    }
    state = { kind: 'read', at: clock.now() }
  }

  function write(work: Promise<unknown>): void {
    writes += 1
    work.catch(failed)
  }

  return {
    reread,
    refresh() {
      if (!isShared) return undefined
      switch (state.kind) {
        case 'unread':
          state = { kind: 'reading', done: reread() }
          return state.done
        case 'reading':
          return state.done
        case 'read':
          if (clock.now() - state.at < REFRESH_MS) return undefined
          state = { kind: 'read', at: clock.now() }
          void reread()
          return undefined
      }
    },
    save(value, ttlMs) {
      if (isShared) write(store.put(key, Buffer.from(JSON.stringify(value)), ttlMs === undefined ? {} : { ttlMs }))
    },
    forget() {
      if (isShared) write(store.delete(key))
    },
    async lock(ttlMs) {
      if (!isShared) return undefined
      try {
        return (await store.lock(`${key}:turn`, ttlMs)) ?? 'taken'
      } catch {
        failed()
        return undefined
      }
    },
    release(lock) {
      lock.release().catch(failed)
    }
  }
}

function parse(bytes: Buffer): unknown {
  try {
    return JSON.parse(bytes.toString())
  } catch {
    // written by another version: as good as none
    return undefined
  }
}
