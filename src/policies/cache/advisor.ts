import { hash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { Clock } from '../../exchange/clock.ts'
import type { Response } from '../../exchange/message.ts'

/** What a lifetime would have done for the calls of one operation, had it been in force. */
export type Trial = {
  readonly ttlMs: number
  /** Calls that would not have been made, their answer being the one that was kept. */
  readonly saved: number
  /** Calls that would not have been made although the answer had changed. */
  readonly outdated: number
}

/** What was measured of one operation's GETs that were answered 200 by the provider. */
export type Advice = {
  readonly operation: string
  readonly calls: number
  /** Those of them whose bodies were compared. */
  readonly judged: number
  /** Those whose body was the same as the one before for the same thing. */
  readonly repeated: number
  readonly trials: readonly Trial[]
  /** The lifetime that would have saved most; undefined where none would have without giving outdated answers. */
  readonly suggested: Trial | undefined
}

export type Advisor = {
  /** Takes an answer into account; `key` stands for all it depends on. Keeps no part of either, only hashes. */
  saw(operation: string, key: string, response: Response): void
  advice(): readonly Advice[]
}

type Tally = { calls: number; judged: number; repeated: number; readonly saved: Uint32Array; readonly outdated: Uint32Array }

/** Per lifetime: when a cache would have asked last, and what it would have kept then. */
type Watched = { last: number; readonly askedAt: Float64Array; readonly kept: Float64Array }

const TTLS_MS = [10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000, 21_600_000, 86_400_000] as const

// Bounds of memory (some 700 KiB an upstream) and of time on the way of an answer (a few microseconds, a hundred times a second).
const KEYS = 1000
const OPERATIONS = 500
const LARGEST_BYTES = 64 * 1024
const JUDGED_PER_SECOND = 100
/** Of the calls a suggested lifetime would have saved, so many may have been answered with what was no longer so. */
const TOLERATED = 0.01

/**
 * Measures which lifetimes would be worth having: plays a cache of each on the calls that really went upstream, for up to
 * 1,000 things at a time, and compares bodies. Bounded in memory and time; what is beyond the bounds is counted, not judged.
 */
export function advisor(clock: Clock): Advisor {
  const watched = new LRUCache<string, Watched>({ max: KEYS })
  const tallies = new Map<string, Tally>()
  let second = 0
  let judgedInSecond = 0

  function saw(operation: string, key: string, { status, source, body }: Response): void {
    if (status !== 200 || source !== 'upstream') return
    const tally = tallyOf(operation)
    tally.calls += 1
    if (body.kind === 'stream' || (body.kind === 'bytes' && body.bytes.length > LARGEST_BYTES)) return
    const now = clock.now()
    if (!mayJudge(now)) return
    tally.judged += 1
    judge(tally, hash('sha256', key, 'base64url'), body.kind === 'bytes' ? digest(body.bytes) : 0, now)
  }

  function judge(tally: Tally, key: string, found: number, now: number): void {
    const known = watched.get(key)
    const one = known ?? { last: found, askedAt: new Float64Array(TTLS_MS.length).fill(-Infinity), kept: new Float64Array(TTLS_MS.length) }
    if (known === undefined) watched.set(key, one)
    else if (known.last === found) tally.repeated += 1
    one.last = found
    TTLS_MS.forEach((ttlMs, i) => {
      if (now - (one.askedAt[i] ?? 0) >= ttlMs) {
        one.askedAt[i] = now
        one.kept[i] = found
      } else {
        const counts = one.kept[i] === found ? tally.saved : tally.outdated
        counts[i] = (counts[i] ?? 0) + 1
      }
    })
  }

  function mayJudge(now: number): boolean {
    const current = Math.floor(clock.realMs(now) / 1000)
    if (current !== second) {
      second = current
      judgedInSecond = 0
    }
    judgedInSecond += 1
    return judgedInSecond <= JUDGED_PER_SECOND
  }

  function tallyOf(operation: string): Tally {
    const name = tallies.has(operation) || tallies.size < OPERATIONS - 1 ? operation : 'other'
    const known = tallies.get(name)
    if (known !== undefined) return known
    const tally = { calls: 0, judged: 0, repeated: 0, saved: new Uint32Array(TTLS_MS.length), outdated: new Uint32Array(TTLS_MS.length) }
    tallies.set(name, tally)
    return tally
  }

  return {
    saw,
    advice: () =>
      [...tallies].map(([operation, { calls, judged, repeated, saved, outdated }]) => {
        const trials = TTLS_MS.map((ttlMs, i) => ({ ttlMs, saved: saved[i] ?? 0, outdated: outdated[i] ?? 0 }))
        return { operation, calls, judged, repeated, trials, suggested: best(trials) }
      })
  }
}

/** The one that saves most; of equal ones the shortest. */
function best(trials: readonly Trial[]): Trial | undefined {
  const good = trials.filter(({ saved, outdated }) => saved > 0 && outdated <= TOLERATED * (saved + outdated))
  return good.toSorted((a, b) => b.saved - a.saved || a.ttlMs - b.ttlMs)[0]
}

// 48 bits fit a double exactly, and are far more than a thousand bodies need.
function digest(bytes: Buffer): number {
  return hash('sha256', bytes, 'buffer').readUIntBE(0, 6)
}
