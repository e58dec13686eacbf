import type { Signal } from './signal.ts'
import type { Duplex, Readable } from 'node:stream'
import type { Fields } from '../http/fields.ts'
import type { Problem } from './problem.ts'

/**
 * A message body with its kind in the type, for requests and responses alike.
 *
 * Small bodies travel as bytes: sending a buffer instead of a stream is where most of the speed of this proxy
 * comes from, and only bytes can be stored, replayed or shared by several callers.
 */
export type Body =
  | { readonly kind: 'none' }
  | { readonly kind: 'bytes'; readonly bytes: Buffer }
  | {
      readonly kind: 'stream'
      readonly stream: Readable
      readonly sizeBytes: number | undefined
      /** Clock time of the last piece taken from the stream, where whoever made it keeps count: an upload under way. */
      readonly readAt?: () => number
    }

export const NO_BODY: Body = { kind: 'none' }

/** Where an answer came from: the `source` label of the metrics and the access log. */
export type Source = 'upstream' | 'cache' | 'stale' | 'collapsed' | 'local'

/**
 * What happened to one request so far: the one mutable part of a request, shared by all its copies. Each field has one
 * owner, named here; everybody else only reads it (access log, `Attache-Attempts`, `Server-Timing`).
 */
export type Trace = {
  /** Calls made upstream, 0 on a cache hit. Owner: transport. */
  attempts: number
  /** Milliseconds from sending to the header, summed over attempts. Owner: transport. */
  upstreamMs: number
  /** Milliseconds spent waiting on purpose: ladder, gate, volume queue. Owners: retry, gate, volume. */
  waitMs: number
  /** Milliseconds spent waiting for a token. Owner: authorize. */
  tokenMs: number
  /** Whether any byte of the current attempt may have reached the provider. Owner: transport. */
  sent: boolean
  /** Clock time of the next attempt while it is waited for; progress of a background operation. Owner: retry. */
  nextTryAt?: number
}

/** How a background operation learns of its attempts in time: a non-repeatable one must be written down before it is sent. */
export type AttemptJournal = {
  /** Resolves once it is durable that an attempt is being sent; rejects where it must not be sent any more. */
  sending(): Promise<void>
  /** The attempt ended before a byte of it can have reached the provider. */
  notSent(): Promise<void>
}

/** What the caller asked of Attache itself; these fields never reach the provider. */
export type CallerWishes = {
  /** `Prefer: wait=N` (RFC 7240), in milliseconds. */
  readonly waitMs: number | undefined
  /** `Prefer: respond-async` (RFC 7240). */
  readonly respondAsync: boolean
  /** `Attache-Timeout`, in milliseconds. */
  readonly timeoutMs: number | undefined
  /** `Idempotency-Key`, verbatim; unlike the others it is passed on to the provider too. */
  readonly idempotencyKey: string | undefined
}

/** A client certificate for one attempt (RFC 8705); `id` keys the connection pool. */
export type ClientCertificate = {
  readonly id: string
  readonly cert: string | Buffer
  readonly key: string | Buffer
  readonly passphrase?: string
}

/**
 * One request of the app, as the policies see it: already cleaned (hop-by-hop fields, credentials and Attache's own
 * fields are gone, configured headers are set), not yet authorized. Policies pass on changed copies.
 */
export type Request = {
  readonly id: string
  readonly upstream: string
  readonly method: string
  /** Path and query behind the upstream's prefix, byte for byte as received, starting with `/`. */
  readonly target: string
  /** `METHOD /template` where one is configured, else `other`: the only path-like thing that may become a label. */
  readonly operation: string
  readonly fields: Fields
  readonly body: Body
  /** Aborted when the caller has gone or the deadline has passed; its reason is a `Problem`. */
  readonly signal: Signal
  /** Clock milliseconds by which the caller must have an answer; `Infinity` before the deadline policy. */
  readonly deadlineAt: number
  readonly wishes: CallerWishes
  /** The credential chosen by path, undefined for `credential: none`. */
  readonly credential: string | undefined
  /** Set by authorize where the credential is a client certificate. */
  readonly clientCertificate?: ClientCertificate
  /**
   * Set by gate and breaker, asked by volume when it lets an attempt go: what stands against it by now, although nothing
   * did when it began to wait for a token or a place.
   */
  readonly objection?: () => Problem | undefined
  /** Set by the cache where it holds an answer: whether that may be given in place of this problem or status, so that nobody need wait to ask again. */
  readonly standIn?: (failure: Problem | number) => boolean
  /** Set by timeout; the transport calls it at every sign of life of the attempt: 0 at the header, then the size of each piece. */
  readonly heard?: (sizeBytes: number) => void
  /** Set by the data port: hands an interim answer (RFC 9110 §15.2, mostly 103) to the caller ahead of the final one. */
  readonly interim?: (status: number, fields: Fields) => void
  /** Set by the data port: the caller asks to go on in another protocol (RFC 9110 §7.8); a 101 then brings a `tunnel`. */
  readonly upgrade?: 'websocket'
  /** Set on a background operation. */
  readonly journal?: AttemptJournal
  readonly trace: Trace
}

/** An answer, returned as soon as its header is known; a `stream` body may still be arriving. */
export type Response = {
  readonly status: number
  readonly fields: Fields
  readonly body: Body
  readonly source: Source
  /** With status 101: the connection to the provider, which is the caller's from now on. */
  readonly tunnel?: Duplex
  /** Our member of the `Cache-Status` list (RFC 9211), without the cache's name; undefined where the cache had no say. */
  readonly cacheStatus?: string
  /** Clock time before which the provider wants no further call; set by gate, so that retry need not guess. */
  readonly retryAt?: number
}

/** The path of a target: everything before `?`. */
export function pathOf(target: string): string {
  const end = target.indexOf('?')
  return end === -1 ? target : target.slice(0, end)
}

/** Throws away a body nobody will read, so that its connection is free again (or closed, when much is left). */
export function discard(body: Body): void {
  if (body.kind !== 'stream') return
  // Destroying without a listener for 'error' would turn a late reset into an uncaught exception.
  body.stream.on('error', ignoreLateError)
  body.stream.destroy()
}

function ignoreLateError(): void {}
