import { NO_BODY, type Body, type Response } from '../../exchange/message.ts'
import type { ResponseControl } from '../../http/cache-control.ts'
import type { Validators } from '../../http/conditional.ts'
import type { Fields } from '../../http/fields.ts'
import type { Selecting } from '../../http/vary.ts'

/** Who set the lifetime, where it was not the provider. */
export type LocalPolicy = 'rule' | 'negative' | 'heuristic'

/** An answer worth storing whose body may still be arriving. Times in milliseconds. */
export type Draft = {
  /** Everything but the selecting fields that decides who may get it: method, identity, target. */
  readonly key: string
  readonly target: string
  readonly status: number
  /** Without those of the connection and without `Age`; with a `Date`. */
  readonly fields: Fields
  readonly control: ResponseControl
  readonly validators: Validators
  readonly selecting: readonly Selecting[]
  /** Whether the provider named selecting fields itself (`Vary`). */
  readonly isNegotiated: boolean
  readonly language: string | undefined
  /** Clock time of arrival, and how old it was then. */
  readonly arrivedAt: number
  readonly arrivalAgeMs: number
  /** How much of that is only the time the answer took. */
  readonly delayAgeMs: number
  readonly lifetimeMs: number
  readonly isExplicit: boolean
  readonly local: LocalPolicy | undefined
}

/** An answer in the store: complete, its body in memory of its own. */
export type StoredAnswer = Draft & {
  readonly body: Body
  readonly sizeBytes: number
  /** The age in whole seconds at the hit made last, and the answer to it where several came within that second. */
  readonly lastHit: { ageS: number; response: Response | undefined }
}

/** How old a stored answer is now (RFC 9111 §4.2.3), in milliseconds. */
export function ageMsOf(answer: Draft, now: number): number {
  return answer.arrivalAgeMs + Math.max(0, now - answer.arrivedAt)
}

/**
 * How old it is to those who waited for it together. The time it took they would each have waited themselves: were it to
 * count, a slow provider would be asked once by every one of them.
 */
export function sharedAgeMsOf(answer: Draft, now: number): number {
  return ageMsOf(answer, now) - answer.delayAgeMs
}

/** Whether it may be given to those who waited for it, at the moment it arrives. */
export function isFreshOnArrival(draft: Draft): boolean {
  return !draft.control.isNoCache && draft.lifetimeMs > draft.arrivalAgeMs - draft.delayAgeMs
}

/** What one answer costs besides its text and body: objects, arrays, index entries. Measured, rounded up. */
const OVERHEAD_BYTES = 1536
const FIELD_OVERHEAD_BYTES = 32

/**
 * Completes a draft. The body is copied: a slice of the socket's buffer would keep all of that in memory, and it is what
 * the store counts that has to be the truth.
 */
export function storedAnswer(draft: Draft, bytes: Buffer | undefined): StoredAnswer {
  return withBody(draft, bytes === undefined || bytes.length === 0 ? NO_BODY : { kind: 'bytes', bytes: ownCopy(bytes) })
}

/** The same, with a body that is in the store already. */
export function withBody(draft: Draft, body: Body): StoredAnswer {
  const text = draft.fields.reduce((sum, part) => sum + part.length + FIELD_OVERHEAD_BYTES, 0) + 2 * draft.key.length + draft.target.length
  const sizeBytes = OVERHEAD_BYTES + text + (body.kind === 'bytes' ? body.bytes.length : 0)
  return { ...draft, body, sizeBytes, lastHit: { ageS: -1, response: undefined } }
}

function ownCopy(bytes: Buffer): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes.length)
  bytes.copy(copy)
  return copy
}
