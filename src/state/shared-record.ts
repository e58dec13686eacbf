import type { Tools } from '../exchange/tools.ts'
import type { Lock, Store } from './store.ts'

const REFRESH_MS = 1000

/**
 * A small JSON record for a room that works from its own memory and must not wait for the store: read once before the
 * first use, then in the background at most once a second; written in the background. Whoever uses the same key shares
 * it: the process after a restart, other replicas, and the rooms that take over when the configuration is reloaded.
 */
export class SharedRecord {
  readonly #key: string
  readonly #tools: Pick<Tools, 'clock' | 'report'> & { store: Store }
  readonly #adopt: (found: unknown) => void
  #state: { kind: 'unread' } | { kind: 'reading'; done: Promise<void> } | { kind: 'read'; at: number } = { kind: 'unread' }
  #writes = 0

  /** `adopt` is told what was found each time the record has been read; undefined where there is none that can be read. */
  constructor(key: string, tools: Pick<Tools, 'clock' | 'report'> & { store: Store }, adopt: (found: unknown) => void) {
    this.#key = key
    this.#tools = tools
    this.#adopt = adopt
  }

  /** To be awaited before the first use; undefined later on. */
  refresh(): Promise<void> | undefined {
    const now = this.#tools.clock.now()
    switch (this.#state.kind) {
      case 'unread':
        this.#state = { kind: 'reading', done: this.reread() }
        return this.#state.done
      case 'reading':
        return this.#state.done
      case 'read':
        if (now - this.#state.at < REFRESH_MS) return undefined
        this.#state = { kind: 'read', at: now }
        void this.reread()
        return undefined
    }
  }

  /** Reads it now, e.g. before a decision that must not be taken twice. Never rejects. */
  async reread(): Promise<void> {
    const writesBefore = this.#writes
    try {
      const bytes = await this.#tools.store.get(this.#key)
      // what was written meanwhile is newer than what was read
      if (this.#writes === writesBefore) this.#adopt(bytes === undefined ? undefined : parse(bytes))
    } catch {
      this.#failed()
    }
    this.#state = { kind: 'read', at: this.#tools.clock.now() }
  }

  save(value: unknown, ttlMs?: number): void {
    this.#write(this.#tools.store.put(this.#key, Buffer.from(JSON.stringify(value)), ttlMs === undefined ? {} : { ttlMs }))
  }

  forget(): void {
    this.#write(this.#tools.store.delete(this.#key))
  }

  /** A turn that only one has at a time: `taken` where somebody else has it, undefined where the store cannot say. */
  async turn(ttlMs: number): Promise<Lock | 'taken' | undefined> {
    try {
      return (await this.#tools.store.lock(`${this.#key}:turn`, ttlMs)) ?? 'taken'
    } catch {
      this.#failed()
      return undefined
    }
  }

  /** Gives a turn back, in the background. */
  release(turn: Lock): void {
    turn.release().catch(() => this.#failed())
  }

  #write(work: Promise<unknown>): void {
    this.#writes += 1
    work.catch(() => this.#failed())
  }

  #failed(): void {
    // what is only remembered here still does its work
    this.#tools.report({ kind: 'warning', about: 'state', message: `${this.#key} could not be read or kept` })
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
