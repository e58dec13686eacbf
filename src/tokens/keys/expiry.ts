/**
 * When keys and certificates end, and what follows from it. Pure: times are epoch milliseconds of the calendar.
 *
 * The figures are those of the integration agreements: a credential lasts two years at most, and the provider needs two
 * weeks to take over a new public key.
 */
export const DAY_MS = 86_400_000
export const LONGEST_LIFE_DAYS = 730

/** Days before the end at which somebody is told, once each; 0 is the end itself. */
export const THRESHOLD_DAYS = [30, 28, 21, 14, 7, 1, 0] as const

const PROVIDER_NEEDS_MS = 14 * DAY_MS
const LEAD_MS = 14 * DAY_MS

/** The life of a key as far as it is known. */
export type KeyLife = {
  /** Of the key's certificate. */
  readonly notBefore: number | undefined
  readonly notAfter: number | undefined
  /** As the config says, for keys without a certificate. */
  readonly expiresAt?: number | undefined
}

/** Why a key is not fit for use, or (`isFatal: false`) why somebody should look at it. */
export type KeyFinding = {
  readonly reason: 'expired' | 'not-yet-valid' | 'too-long' | 'unusable' | 'end-unknown' | 'ends-soon'
  readonly isFatal: boolean
  /** The clause a waiver has to name. */
  readonly clause: 'IA-06' | 'IA-07' | 'IA-09'
  /** Lower case, no full stop, names the way out; to be put behind the name of the credential. */
  readonly message: string
}

/** When the key ends: the earlier of certificate and config, undefined where neither says. */
export function expiryOf(life: KeyLife): number | undefined {
  if (life.notAfter === undefined) return life.expiresAt
  return life.expiresAt === undefined ? life.notAfter : Math.min(life.notAfter, life.expiresAt)
}

/** By when the new public key has to be with the provider: two weeks before the end, and a lead for ourselves. */
export function dueAt(expiresAt: number, leadMs = LEAD_MS): number {
  return expiresAt - PROVIDER_NEEDS_MS - leadMs
}

/** Whole days left, rounded up, so that the last day is 1; 0 or less when it is over. */
export function daysLeft(expiresAt: number, now: number): number {
  return Math.ceil((expiresAt - now) / DAY_MS)
}

/** The lowest threshold reached, undefined while none is: 30 from 30 days before the end on, 0 after it. */
export function thresholdReached(expiresAt: number, now: number): number | undefined {
  const leftMs = expiresAt - now
  return THRESHOLD_DAYS.findLast((days) => leftMs <= days * DAY_MS)
}

/** Everything that can be said about a key's dates, the fatal first. */
export function keyFindings(life: KeyLife, now: number): KeyFinding[] {
  return [...validityFindings(life, now), ...lengthFindings(life, now), ...renewalFindings(life, now)].toSorted(
    (one, other) => Number(other.isFatal) - Number(one.isFatal)
  )
}

function validityFindings(life: KeyLife, now: number): KeyFinding[] {
  const findings: KeyFinding[] = []
  const expiresAt = expiryOf(life)
  if (expiresAt !== undefined && expiresAt <= now) {
    findings.push({ reason: 'expired', isFatal: true, clause: 'IA-06', message: `key ended on ${day(expiresAt)}, put a new key in its place` })
  }
  if (life.notBefore !== undefined && life.notBefore > now) {
    findings.push({ reason: 'not-yet-valid', isFatal: true, clause: 'IA-06', message: `key is not valid before ${day(life.notBefore)}` })
  }
  return findings
}

function lengthFindings(life: KeyLife, now: number): KeyFinding[] {
  const longest = LONGEST_LIFE_DAYS * DAY_MS
  // A raw key tells no beginning, but one that ends later than this from now lasts too long whenever it began.
  const end = life.notAfter ?? life.expiresAt
  if (end === undefined || end - (life.notBefore ?? now) <= longest) return []
  const message = `key lasts longer than ${LONGEST_LIFE_DAYS} days, make one with attache keys new --days ${LONGEST_LIFE_DAYS}`
  return [{ reason: 'too-long', isFatal: true, clause: 'IA-09', message }]
}

function renewalFindings(life: KeyLife, now: number): KeyFinding[] {
  const expiresAt = expiryOf(life)
  if (expiresAt === undefined) {
    return [{ reason: 'end-unknown', isFatal: false, clause: 'IA-06', message: 'key has no known end, set expiresAt or add its certificate' }]
  }
  if (expiresAt <= now || now < dueAt(expiresAt)) return []
  const late = now >= expiresAt - PROVIDER_NEEDS_MS ? ', already late' : ''
  const message = `key ends on ${day(expiresAt)}, in ${daysLeft(expiresAt, now)} days: its successor was due at the provider on ${day(dueAt(expiresAt))}${late}`
  return [{ reason: 'ends-soon', isFatal: false, clause: 'IA-07', message }]
}

/** A date as people write it, UTC. */
export function day(at: number): string {
  return new Date(at).toISOString().slice(0, 10)
}
