import { packRecord, unpackRecord } from '../exchange/record.ts'
import { open, seal } from '../state/seal.ts'
import type { Store } from '../state/store.ts'

/** A request that was accepted, with everything needed to carry it out in another process. */
export type Entry = {
  readonly id: string
  readonly upstream: string
  readonly requestId: string
  readonly method: string
  readonly target: string
  readonly operation: string
  readonly fields: readonly string[]
  readonly credential?: string
  readonly idempotencyKey?: string
  readonly fingerprint: string
  readonly isRepeatable: boolean
  /** Clock time. */
  readonly deadlineAt: number
}

/** How an operation ended: the answer as the app would have seen it. */
export type Outcome = {
  readonly upstream: string
  readonly fingerprint: string
  readonly status: number
  readonly fields: readonly string[]
  /** The answer is one of Attache's own (`application/problem+json`). */
  readonly isProblem: boolean
  /** The body was too large to keep. */
  readonly isCut: boolean
  /** Clock time until which it is kept. */
  readonly keptUntil: number
}

/** Who carries an operation out and how far it has got. Holds nothing secret. */
export type State = {
  readonly owner: string
  /** An attempt may be on its way. */
  readonly isSending: boolean
  readonly attempts: number
  /** Clock time of the last attempt. */
  readonly lastTryAt: number
}

/** What the store holds of one operation. */
export type Remains = { readonly hasRequest: boolean; readonly hasOutcome: boolean; readonly isCancelled: boolean }

/** Whoever tries to write after another replica took over. */
export class TakenOver extends Error {
  constructor() {
    super('another replica has taken over this operation')
    this.name = 'TakenOver'
  }
}

export type Journal = ReturnType<typeof journal>

const PREFIX = 'operations/'
const TAKING_MS = 10_000
/** Records of an operation that was never ended disappear this long after its deadline. */
const REMAINS_MS = 24 * 3_600_000
const NOTHING = Buffer.alloc(0)
const UNKNOWN_STATE: State = { owner: '', isSending: false, attempts: 0, lastTryAt: 0 }

/**
 * The durable side of background operations: per operation a sealed request, a state with its owner, and in the end a
 * sealed outcome. Writes of an owner that was paused and replaced are refused by the store's fences.
 */
export function journal(store: Store, sealKey: Buffer, now: () => number) {
  const key = (id: string, part: 'request' | 'state' | 'outcome' | 'cancel'): string => `${PREFIX}${id}/${part}`

  async function put(at: string, head: unknown, bytes: Buffer, options: { ttlMs: number; fence: number }): Promise<void> {
    const isWritten = await store.put(at, seal(sealKey, packRecord(head, bytes), at), options)
    if (!isWritten) throw new TakenOver()
  }

  async function get(at: string): Promise<{ head: unknown; bytes: Buffer } | undefined> {
    const sealed = await store.get(at)
    const record = sealed === undefined ? undefined : open(sealKey, sealed, at)
    return record === undefined ? undefined : unpackRecord(record)
  }

  async function state(id: string): Promise<State> {
    const record = await store.get(key(id, 'state'))
    return (record === undefined ? undefined : (unpackRecord(record)?.head as State | undefined)) ?? UNKNOWN_STATE
  }

  async function putState(entry: Entry, next: State, fence: number): Promise<void> {
    const ttlMs = Math.max(0, entry.deadlineAt - now()) + REMAINS_MS
    if (!(await store.put(key(entry.id, 'state'), packRecord(next, NOTHING), { ttlMs, fence }))) throw new TakenOver()
  }

  /** Resolves once the operation will survive a crash. */
  async function accept(entry: Entry, body: Buffer, first: State): Promise<void> {
    await putState(entry, first, 0)
    await put(key(entry.id, 'request'), entry, body, { ttlMs: entry.deadlineAt - now() + REMAINS_MS, fence: 0 })
  }

  async function request(id: string): Promise<{ entry: Entry; body: Buffer } | undefined> {
    const record = await get(key(id, 'request'))
    return record === undefined ? undefined : { entry: record.head as Entry, body: record.bytes }
  }

  /** Makes `owner` the one who carries it out; gives its fence, or undefined where another replica was quicker. */
  async function take(entry: Entry, from: State, owner: string): Promise<number | undefined> {
    const lock = await store.lock(`${PREFIX}${entry.id}`, TAKING_MS)
    if (lock === undefined) return undefined
    try {
      if ((await state(entry.id)).owner !== from.owner) return undefined
      await putState(entry, { ...from, owner }, lock.fence)
      return lock.fence
    } finally {
      await lock.release()
    }
  }

  async function end(id: string, outcome: Outcome, body: Buffer, fence: number): Promise<void> {
    await put(key(id, 'outcome'), outcome, body, { ttlMs: Math.max(1, outcome.keptUntil - now()), fence })
    await store.delete(key(id, 'request'))
    await store.delete(key(id, 'cancel'))
    // a replaced owner may wake up later: it has to find that its fence is no longer good
    if (fence === 0) await store.delete(key(id, 'state'))
  }

  async function outcome(id: string): Promise<{ outcome: Outcome; body: Buffer } | undefined> {
    const record = await get(key(id, 'outcome'))
    return record === undefined ? undefined : { outcome: record.head as Outcome, body: record.bytes }
  }

  /** Asks whoever carries it out to stop. */
  async function cancel(entry: Entry): Promise<void> {
    await store.put(key(entry.id, 'cancel'), NOTHING, { ttlMs: Math.max(0, entry.deadlineAt - now()) + REMAINS_MS })
  }

  async function forget(id: string): Promise<void> {
    for (const part of ['request', 'outcome', 'cancel', 'state'] as const) await store.delete(key(id, part))
  }

  async function list(): Promise<Map<string, Remains>> {
    const found = new Map<string, Remains>()
    for (const name of await store.keys(PREFIX)) {
      const [id = '', part] = name.slice(PREFIX.length).split('/')
      const remains = found.get(id) ?? { hasRequest: false, hasOutcome: false, isCancelled: false }
      if (part === 'request') found.set(id, { ...remains, hasRequest: true })
      if (part === 'outcome') found.set(id, { ...remains, hasOutcome: true })
      if (part === 'cancel') found.set(id, { ...remains, isCancelled: true })
    }
    return found
  }

  return { accept, mark: putState, request, state, take, end, outcome, cancel, forget, list }
}
