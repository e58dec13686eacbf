import { randomUUID } from 'node:crypto'
import type { Tools } from '../exchange/tools.ts'
import type { Backend } from './backend.ts'
import { memoryStore, nextFence } from './memory.ts'
import { owedTo } from './owed.ts'
import type { Lock, Store } from './store.ts'
import { supervised, type Open } from './supervised.ts'

const MIRROR = { entries: 10_000, bytes: 32 * 1024 * 1024 }
const OWED = { entries: 1_000, bytes: 16 * 1024 * 1024 }

/**
 * A store out of a place that may fail: shared state is an optimisation, never a dependency.
 *
 * While the place is down, calls are served at once from a mirror in memory (what this process last read or wrote; locks
 * and counters of its own), and a probe every 100 ms to 2 s (real time) finds out when it is back. What was written
 * meanwhile is then made good: the last value of each record, deletions and the sum added to each counter, up to 1,000
 * of them or 16 MiB, the newest kept. Never rejects; an outage is one `warning` event, at most one a minute.
 */
export async function withStandIn(kind: Store['kind'], open: Open<Backend>, tools: Tools): Promise<Store> {
  const { clock } = tools
  const mirror = memoryStore(tools, MIRROR)
  const owed = owedTo(clock, OWED)
  let highestFence = 0

  const place = await supervised<Backend>(
    {
      open,
      // A debt left behind would be paid, outdated, after the next outage.
      async settle(backend) {
        while (owed.size > 0) await owed.settle(backend)
      },
      about: 'state',
      unexpected: `the ${kind} state failed unexpectedly`,
      consequence: 'working from memory until it is back'
    },
    tools
  )
  const { attempt } = place

  function get(key: string): Promise<Buffer | undefined> {
    return attempt(
      async (backend) => {
        const held = await backend.get(key)
        if (held === undefined) await mirror.delete(key)
        else await mirror.put(key, held.value, held.ttlMs === undefined ? {} : { ttlMs: held.ttlMs })
        return held?.value
      },
      () => mirror.get(key)
    )
  }

  /** The mirror then has what this process wrote itself: whether others go on with what they did cannot be seen. */
  function peek(key: string): Promise<Buffer | undefined> {
    return attempt(
      async (backend) => (await backend.get(key))?.value,
      () => mirror.get(key)
    )
  }

  function put(key: string, value: Buffer, options: { ttlMs?: number; fence?: number } = {}): Promise<boolean> {
    const { ttlMs, fence } = options
    const expiresAt = clock.now() + (ttlMs ?? Infinity)
    return attempt(
      async (backend) => {
        const written = await backend.put(key, value, ttlMs, fence)
        if (written) await mirror.put(key, value, options)
        return written
      },
      async () => {
        const kept = Buffer.from(value)
        const written = await mirror.put(key, kept, options)
        if (written) {
          owed.owe(`record ${key}`, kept.length, async (backend) => {
            const leftMs = expiresAt - clock.now()
            if (leftMs > 0) await backend.put(key, kept, leftMs === Infinity ? undefined : leftMs, fence)
          })
        }
        return written
      }
    )
  }

  async function remove(key: string): Promise<void> {
    await mirror.delete(key)
    owed.forgetCounter(key)
    await attempt(
      (backend) => backend.delete(key),
      () => owed.owe(`record ${key}`, 0, (backend) => backend.delete(key))
    )
  }

  function add(key: string, amount: number, ttlMs: number): Promise<number> {
    return attempt(
      async (backend) => {
        const value = await backend.add(key, amount, ttlMs)
        // The mirror follows what all processes added, so that it goes on from there in an outage.
        const mirrored = await mirror.add(key, amount, ttlMs)
        if (mirrored !== value) await mirror.add(key, value - mirrored, ttlMs)
        return value
      },
      () => {
        owed.oweCounter(key, amount, clock.now() + ttlMs)
        return mirror.add(key, amount, ttlMs)
      }
    )
  }

  async function lock(key: string, ttlMs: number): Promise<Lock | undefined> {
    // The own process first: it answers without a round trip, and goes on holding when the place is lost.
    const local = await mirror.lock(key, ttlMs)
    if (local === undefined) return undefined
    const holder = randomUUID()
    const fence = await attempt(
      (backend) => backend.lock(key, holder, ttlMs, highestFence),
      () => nextFence(highestFence, clock.wallNow())
    )
    if (fence === undefined) {
      await local.release()
      return undefined
    }
    highestFence = Math.max(highestFence, fence)
    return {
      fence,
      async release() {
        // Also where it was taken locally: the request for it may have been carried out after its time ran out.
        const unlock = (backend: Backend): Promise<void> => backend.unlock(key, holder)
        await attempt(unlock, () => owed.owe(`lock ${holder}`, 0, unlock))
        await local.release()
      }
    }
  }

  function keys(prefix: string): Promise<string[]> {
    return attempt(
      (backend) => backend.keys(prefix),
      () => mirror.keys(prefix)
    )
  }

  return {
    kind,
    get,
    peek,
    put,
    delete: remove,
    keys,
    add,
    lock,
    async close() {
      owed.clear()
      await place.close()
      await mirror.close()
    }
  }
}
