/**
 * The arithmetic of frugality (contract §4.1), pure: when a token may be replaced, how often by force, and how long to
 * leave a token service alone. All times are clock milliseconds.
 */
import type { StoredToken } from './record.ts'

export type FrugalityOptions = { readonly minUse: number; readonly margin: number }

export const HOUR_MS = 3_600_000
const FORCED_GAP_MS = 60_000
const LADDER_MS = [10_000, 30_000, 60_000] as const
const LONGEST_PAUSE_MS = HOUR_MS
// Whatever the config says, a token serves a tenth of its life: less would be a token request per call.
const LEAST_USE = 0.1
const LARGEST_MARGIN = 0.05

/** From when on the token must not be sent any more. A clock set back must not lengthen its life. */
export function expiresAt(token: StoredToken, now: number): number {
  return Math.min(token.requestedAt, now) + token.lifetimeMs
}

/** From when on a request may bring about its renewal: the agreed share of its life, by the provider's count. */
export function renewableAt(token: StoredToken, options: FrugalityOptions): number {
  return token.receivedAt + usedShare(options) * token.lifetimeMs
}

/** When keeping warm renews it: shortly before expiry, but never before the agreed share is used. */
export function warmAt(token: StoredToken, options: FrugalityOptions): number {
  const marginMs = Math.min(options.margin, LARGEST_MARGIN * token.lifetimeMs)
  return Math.max(renewableAt(token, options), token.requestedAt + token.lifetimeMs - marginMs)
}

/** Share of its life a token has served. */
export function reuseRatio(token: StoredToken, now: number): number {
  return Math.min(1, Math.max(0, (now - token.requestedAt) / token.lifetimeMs))
}

/** From when on a rejected token may be replaced by force again: one a minute, and an hourly cap. */
export function forcedAllowedAt(forcedAt: readonly number[], lifetimeMs: number, options: FrugalityOptions, now: number): number {
  const recent = recentForced(forcedAt, now)
  const last = recent.at(-1)
  if (last === undefined) return now
  const cap = Math.ceil(HOUR_MS / (usedShare(options) * lifetimeMs)) + 2
  const oldestThatCounts = recent.length >= cap ? recent.at(-cap) : undefined
  return Math.max(last + FORCED_GAP_MS, oldestThatCounts === undefined ? 0 : oldestThatCounts + HOUR_MS)
}

/** Those within the last hour; times in the future are of a clock that was set back and count as now. */
export function recentForced(forcedAt: readonly number[], now: number): number[] {
  return forcedAt.map((at) => Math.min(at, now)).filter((at) => at > now - HOUR_MS)
}

/**
 * How long to leave the token service alone after so many failures in a row: 10, 30, 60, 60, … seconds or what it asked
 * for, whichever is longer, but an hour at most. `random` lengthens by up to a fifth, so that replicas do not march in step.
 */
export function pauseMs(failures: number, retryAfterMs: number | undefined, random: number): number {
  const step = LADDER_MS[Math.min(Math.max(failures, 1), LADDER_MS.length) - 1] ?? 60_000
  return Math.min(LONGEST_PAUSE_MS, Math.max(step, retryAfterMs ?? 0) * (1 + random / 5))
}

/** A pause kept in a record, as seen now: never longer than one can be, whatever happened to the clock. */
export function pausedUntil(recorded: number, now: number): number {
  return Math.min(recorded, now + LONGEST_PAUSE_MS)
}

function usedShare(options: FrugalityOptions): number {
  return Math.max(options.minUse, LEAST_USE)
}
