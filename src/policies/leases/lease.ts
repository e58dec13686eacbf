import { NO_BODY, type Response } from '../../exchange/message.ts'
import { packRecord, unpackRecord } from '../../exchange/record.ts'
import { withoutField, type Fields } from '../../http/fields.ts'
import { open, seal } from '../../state/seal.ts'

/** A secret on loan: the whole answer that brought it. Times are clock milliseconds. */
export type Lease = {
  readonly status: number
  readonly fields: Fields
  readonly bytes: Buffer
  readonly obtainedAt: number
  readonly validMs: number
}

// Replicas' clocks differ by less; a clock that was set back by more must not lengthen a lease's life.
const MOST_AHEAD_MS = 300_000

/** From when on it is worth asking for another one. */
export function dueAt(lease: Lease, share: number): number {
  return lease.obtainedAt + share * lease.validMs
}

export function isGood(lease: Lease, now: number): boolean {
  return now < lease.obtainedAt + lease.validMs && lease.obtainedAt <= now + MOST_AHEAD_MS
}

/** The answer again, with its age (RFC 9111 §5.1): the app may keep a cache of its own. */
export function answerFrom(lease: Lease, now: number): Pick<Response, 'status' | 'fields' | 'body'> {
  const ageS = Math.floor(Math.max(0, now - lease.obtainedAt) / 1000)
  return {
    status: lease.status,
    fields: [...withoutField(lease.fields, 'age'), 'Age', String(ageS)],
    body: lease.bytes.length === 0 ? NO_BODY : { kind: 'bytes', bytes: lease.bytes }
  }
}

/** As it lies in the state: nothing of the answer is readable there. `key` is the record's own. */
export function sealLease(lease: Lease, sealKey: Buffer, key: string): Buffer {
  const { bytes, ...head } = lease
  return seal(sealKey, packRecord({ version: 1, ...head }, bytes), key)
}

/** What `sealLease` made; undefined for anything else. */
export function openLease(sealed: Buffer | undefined, sealKey: Buffer, key: string): Lease | undefined {
  const plain = sealed === undefined ? undefined : open(sealKey, sealed, key)
  const parts = plain === undefined ? undefined : unpackRecord(plain)
  if (parts === undefined) return undefined
  // The seal vouches for the shape, the version for its meaning.
  const { version, ...head } = parts.head as Omit<Lease, 'bytes'> & { version: number }
  return version === 1 ? { ...head, bytes: parts.bytes } : undefined
}
