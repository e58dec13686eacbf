import type { JWK } from 'jose'
import { open, seal } from '../state/seal.ts'
import type { Material } from './material.ts'

/** A token as it is kept. All times are clock milliseconds. */
export type StoredToken = {
  readonly value: string
  readonly scheme: 'Bearer' | 'DPoP'
  /** Before the request was sent: its life cannot have begun earlier, so expiry counts from here. */
  readonly requestedAt: number
  /** When the answer was there: its life cannot have begun later, so the agreed share counts from here. */
  readonly receivedAt: number
  readonly lifetimeMs: number
}

export type StoredRefresh = {
  readonly value: string
  /** Undefined: no end is known. */
  readonly expiresAt: number | undefined
  /** When it was handed over; set before it is sent and cleared by any answer that leaves it good. */
  readonly spentAt: number | undefined
}

/**
 * Everything known of one token identity, over restarts and replicas. Written before every token request, so that a crash
 * in the middle of one leaves its back-off and its spent refresh token behind.
 */
export type TokenRecord = {
  readonly version: 1
  readonly token?: StoredToken
  readonly refresh?: StoredRefresh
  /** Fingerprint of the configured first refresh token that the chain began with. */
  readonly chain?: string
  /** Token requests in a row that brought no token. */
  readonly failures: number
  /** No token request before this time. */
  readonly pausedUntil: number
  /** When renewals were forced by a rejected token, within the last hour. */
  readonly forcedAt: readonly number[]
  /** The credential was refused for good. */
  readonly latch?: { readonly error: string; readonly at: number }
  readonly dpopKey?: JWK
}

export const EMPTY_RECORD: TokenRecord = { version: 1, failures: 0, pausedUntil: 0, forcedAt: [] }

/** Where the record of an identity lies. */
export function recordKey(material: Material): string {
  return `token:${material.identity}`
}

export function sealRecord(record: TokenRecord, material: Material): Buffer {
  return seal(material.sealKey, Buffer.from(JSON.stringify(record)), recordKey(material))
}

/** The record in what a store gave; an empty one where there is none, or none that is ours. */
export function openRecord(sealed: Buffer | undefined, material: Material): TokenRecord {
  const plain = sealed === undefined ? undefined : open(material.sealKey, sealed, recordKey(material))
  if (plain === undefined) return EMPTY_RECORD
  // Nobody without the credential can have written it: the seal vouches for the shape, the version for its meaning.
  const record = JSON.parse(plain.toString()) as TokenRecord
  return record.version === 1 ? record : EMPTY_RECORD
}

/** How long a record is worth keeping: undefined for one that only an operator outdates. */
export function recordTtlMs(record: TokenRecord, now: number): number | undefined {
  if (record.latch !== undefined || (record.refresh !== undefined && record.refresh.expiresAt === undefined)) return undefined
  const tokenUntil = record.token === undefined ? 0 : record.token.requestedAt + record.token.lifetimeMs
  const lastUse = Math.max(tokenUntil, record.refresh?.expiresAt ?? 0, record.pausedUntil)
  // The hour is that of the forced renewals' budget.
  return Math.max(0, lastUse - now) + 3_600_000
}
