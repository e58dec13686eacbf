/**
 * What a place outside the process has to offer so that `withStandIn` can make a `Store` of it. Unlike a store's, these
 * calls reject when the place is not available (gone, slow, full, garbage); each is bounded in time. Durations are
 * clock time.
 */
export type Backend = {
  get(key: string): Promise<Held | undefined>
  /** Resolves once durable; false where a holder with a higher fence has written the key. */
  put(key: string, value: Buffer, ttlMs: number | undefined, fence: number | undefined): Promise<boolean>
  delete(key: string): Promise<void>
  keys(prefix: string): Promise<string[]>
  add(key: string, amount: number, ttlMs: number): Promise<number>
  /** Gives a fence higher than `above` and any before, or undefined where somebody holds the lock. `holder` names who may unlock it. */
  lock(key: string, holder: string, ttlMs: number, above: number): Promise<number | undefined>
  unlock(key: string, holder: string): Promise<void>
  close(): Promise<void>
}

/** A record with the time it still has to live, in clock milliseconds. */
export type Held = { readonly value: Buffer; readonly ttlMs: number | undefined }

/** Why a backend cannot serve: the message is our own sentence, fit for the log; the library's error is the cause. */
export class Unavailable extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, { cause })
    this.name = 'Unavailable'
  }
}
