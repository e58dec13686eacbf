import { randomUUID } from 'node:crypto'
import type { Clock } from '../exchange/clock.ts'
import type { Lock, Store } from '../state/store.ts'

/** The right to ask the token service for one identity, held by one process at a time. */
export type Claim = {
  readonly fence: number
  release(): Promise<void>
}

/**
 * How things stand: settled without asking; open to be asked for, with the state that was seen; or open, but only if
 * nobody else is asking right now, else what they bring is waited for.
 */
export type Standing<Outcome, Seen> = { readonly settled: Outcome } | { readonly open: Seen; readonly unlessFree?: Outcome }

export type Claimed<Outcome, Seen> =
  | { readonly kind: 'settled'; readonly outcome: Outcome }
  | { readonly kind: 'claimed'; readonly seen: Seen; readonly claim: Claim }
  | { readonly kind: 'busy' }

type ClaimTools = { readonly clock: Clock; readonly store: Store; readonly giveUpAfterMs: number; readonly signal: AbortSignal }

// All in real milliseconds: other processes do not run faster under --speed.
const TURN_MS = 5_000
const ASKING_MS = 6_000
const POLL_MS = 50

/**
 * Waits for the turn of this process. The lock is held only for the moment of deciding; that somebody is asking is then
 * shown by a mark that is renewed while they live, so that a killed process blocks the others for seconds, and a slow
 * token service does not let two of them in. Where the store goes away, so does what others' marks say, and nobody waits
 * for them. `look` is called anew after every wait, and once more under the lock.
 */
export async function claimOf<Outcome, Seen>(key: string, tools: ClaimTools, look: () => Promise<Standing<Outcome, Seen>>): Promise<Claimed<Outcome, Seen>> {
  const { clock, store, signal } = tools
  const inClockTime = (realMs: number): number => realMs / clock.realMs(1)
  const asking = `asking:${key}`
  const giveUpAt = clock.now() + tools.giveUpAfterMs

  for (;;) {
    const before = await look()
    if ('settled' in before) return { kind: 'settled', outcome: before.settled }
    const lock = (await store.peek(asking)) === undefined ? await store.lock(`turn:${key}`, inClockTime(TURN_MS)) : undefined
    if (lock !== undefined) {
      const decided = await decide(lock)
      if (decided !== undefined) return decided
    }
    if (clock.now() >= giveUpAt) return { kind: 'busy' }
    await clock.sleep(inClockTime(POLL_MS), signal)
  }

  async function decide(lock: Lock): Promise<Claimed<Outcome, Seen> | undefined> {
    try {
      const now = await look()
      if ('settled' in now) return { kind: 'settled', outcome: now.settled }
      if ((await store.peek(asking)) !== undefined) return undefined
      if (now.unlessFree !== undefined) return { kind: 'settled', outcome: now.unlessFree }
      return { kind: 'claimed', seen: now.open, claim: { fence: lock.fence, release: await markAsking() } }
    } finally {
      await lock.release()
    }
  }

  async function markAsking(): Promise<() => Promise<void>> {
    const mark = Buffer.from(randomUUID())
    const ttlMs = inClockTime(ASKING_MS)
    let writing: Promise<unknown> = store.put(asking, mark, { ttlMs })
    await writing
    const timer = clock.after(ttlMs / 3, () => {
      writing = store.put(asking, mark, { ttlMs })
      timer.refresh()
    })
    return async function release() {
      timer.cancel()
      await writing
      await store.delete(asking)
    }
  }
}
