import type { Tools } from '../exchange/tools.ts'
import type { Lock, Store } from './store.ts'

type Entry = { value: Buffer; fence: number; expiresAt: number }
type Counter = { value: number; expiresAt: number }
type Bounds = { entries: number; bytes: number }

const BOUNDS: Bounds = { entries: 100_000, bytes: 256 * 1024 * 1024 }

/**
 * A store that lasts as long as the process.
 *
 * Over its bounds (100,000 records, counters and locks each; 256 MiB of values) the records written longest ago go first: a
 * lost record costs a token request, an endless map costs the process.
 */
export function memoryStore(tools: Pick<Tools, 'clock'>, bounds: Bounds = BOUNDS): Store {
  const { clock } = tools
  const entries = new Map<string, Entry>()
  const counters = new Map<string, Counter>()
  const locks = new Map<string, Counter>()
  let bytes = 0
  let lastFence = 0

  function drop(key: string): void {
    bytes -= entries.get(key)?.value.length ?? 0
    entries.delete(key)
  }

  function live(key: string): Entry | undefined {
    const entry = entries.get(key)
    if (entry === undefined || entry.expiresAt > clock.now()) return entry
    drop(key)
    return undefined
  }

  function makeRoom(): void {
    if (entries.size <= bounds.entries && bytes <= bounds.bytes) return
    const now = clock.now()
    for (const [key, entry] of entries) if (entry.expiresAt <= now) drop(key)
    // Down to nine tenths, so that a full store does not walk its map at every write.
    for (const key of entries.keys()) {
      if (entries.size <= bounds.entries * 0.9 && bytes <= bounds.bytes * 0.9) break
      drop(key)
    }
  }

  async function get(key: string): Promise<Buffer | undefined> {
    const entry = live(key)
    return entry === undefined ? undefined : Buffer.from(entry.value)
  }

  async function put(key: string, value: Buffer, options: { ttlMs?: number; fence?: number } = {}): Promise<boolean> {
    const before = live(key)
    if (options.fence !== undefined && before !== undefined && before.fence > options.fence) return false
    drop(key)
    // A copy: the caller may go on using its buffer, and a slice would keep a whole pool alive.
    entries.set(key, {
      value: Buffer.from(value),
      fence: Math.max(before?.fence ?? 0, options.fence ?? 0),
      expiresAt: clock.now() + (options.ttlMs ?? Infinity)
    })
    bytes += value.length
    makeRoom()
    return true
  }

  async function add(key: string, amount: number, ttlMs: number): Promise<number> {
    const now = clock.now()
    const before = counters.get(key)
    const counter = before !== undefined && before.expiresAt > now ? before : { value: 0, expiresAt: now + ttlMs }
    // adding nothing is looking: no reason to keep a counter for it
    if (amount === 0) return counter.value
    counter.value += amount
    counters.set(key, counter)
    trim(counters, now, bounds.entries)
    return counter.value
  }

  async function lock(key: string, ttlMs: number): Promise<Lock | undefined> {
    const now = clock.now()
    const held = locks.get(key)
    if (held !== undefined && held.expiresAt > now) return undefined
    const fence = nextFence(lastFence, clock.wallNow())
    lastFence = fence
    locks.set(key, { value: fence, expiresAt: now + ttlMs })
    trim(locks, now, bounds.entries)
    return {
      fence,
      async release() {
        if (locks.get(key)?.value === fence) locks.delete(key)
      }
    }
  }

  return {
    kind: 'memory',
    get,
    peek: get,
    put,
    add,
    lock,
    async delete(key) {
      drop(key)
      counters.delete(key)
    },
    async keys(prefix) {
      return [...entries.keys()].filter((key) => key.startsWith(prefix) && live(key) !== undefined)
    },
    async close() {
      entries.clear()
      counters.clear()
      locks.clear()
      bytes = 0
    }
  }
}

/**
 * The fence that follows `last`: at least the time in milliseconds, so that fences go on growing where the count itself
 * was lost (a state file set aside, a Redis emptied, a change from one store to another).
 */
export function nextFence(last: number, wallNow: number): number {
  return Math.max(last + 1, Math.floor(wallNow))
}

function trim(map: Map<string, Counter>, now: number, most: number): void {
  if (map.size <= most) return
  for (const [key, { expiresAt }] of map) if (expiresAt <= now) map.delete(key)
  for (const key of map.keys()) {
    if (map.size <= most * 0.9) break
    map.delete(key)
  }
}
