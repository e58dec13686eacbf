import type { Clock } from '../exchange/clock.ts'
import { Problem } from '../exchange/problem.ts'
import type { AsyncOptions } from './options.ts'

/** Keeps the number and size of background operations and their outcomes within bounds, per upstream. */
export type Room = {
  /** Claims room for an operation that is about to be accepted. Rejects with `upstream-wait` (503) where there is none. */
  claim(id: string, upstream: string, sizeBytes: number, options: AsyncOptions | undefined): void
  /** Notes what is there already: an outcome until it expires, an operation under way for ever. */
  hold(id: string, upstream: string, sizeBytes: number, until?: number): void
  has(id: string): boolean
  release(id: string): void
}

const ASK_AGAIN_MS = 60_000

export function room({ now }: Pick<Clock, 'now'>): Room {
  const held = new Map<string, { upstream: string; sizeBytes: number; until: number }>()

  function hold(id: string, upstream: string, sizeBytes: number, until = Infinity): void {
    held.set(id, { upstream, sizeBytes, until })
  }

  function claim(id: string, upstream: string, sizeBytes: number, options: AsyncOptions | undefined): void {
    let count = 0
    let bytes = sizeBytes
    let soonest = Infinity
    for (const [other, each] of held) {
      if (each.until <= now()) held.delete(other)
      else if (each.upstream === upstream && other !== id) {
        count += 1
        bytes += each.sizeBytes
        soonest = Math.min(soonest, each.until)
      }
    }
    if (options === undefined || count >= options.operations || bytes > options.maxBytes) {
      throw new Problem('upstream-wait', {
        detail: `${upstream} keeps as many background operations as async.operations and async.maxBytes allow; delete outcomes that have been read`,
        retryAfterMs: Number.isFinite(soonest) ? soonest - now() : ASK_AGAIN_MS
      })
    }
    hold(id, upstream, sizeBytes)
  }

  return { claim, hold, has: (id) => held.has(id), release: (id) => void held.delete(id) }
}
