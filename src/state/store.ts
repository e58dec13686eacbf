/**
 * Where things are kept over restarts (`sqlite:`), over replicas (`redis:`) or not at all (`memory:`). Values are opaque
 * bytes: whoever stores a secret seals it first (`state/seal.ts`). All durations are clock time.
 */
export type Store = {
  readonly kind: 'memory' | 'sqlite' | 'redis'
  get(key: string): Promise<Buffer | undefined>
  /** Like `get`, but what another process wrote is not remembered for an outage: for marks that say what it is doing just now. */
  peek(key: string): Promise<Buffer | undefined>
  /**
   * Resolves once the value is durable. With `fence`, refused (false) when a holder with a higher fence has written the
   * key: the writer was paused past its lock and somebody else took over.
   */
  put(key: string, value: Buffer, options?: { ttlMs?: number; fence?: number }): Promise<boolean>
  delete(key: string): Promise<void>
  /** Keys that begin with the prefix, in no particular order. */
  keys(prefix: string): Promise<string[]>
  /** Adds to a counter atomically and gives its new value; the counter vanishes `ttlMs` after its first use. Adding 0 only looks. */
  add(key: string, amount: number, ttlMs: number): Promise<number>
  /** Takes a lock for at most `ttlMs`, or gives undefined at once where somebody holds it. */
  lock(key: string, ttlMs: number): Promise<Lock | undefined>
  close(): Promise<void>
}

/** Fences of one key only ever grow, over restarts too. */
export type Lock = {
  readonly fence: number
  release(): Promise<void>
}
