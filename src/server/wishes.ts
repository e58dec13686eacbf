import type { CallerWishes } from '../exchange/message.ts'
import { Problem } from '../exchange/problem.ts'
import { DURATION } from '../exchange/options.ts'
import { field, fieldList, withoutField, type Fields } from '../http/fields.ts'

const NO_WISHES: CallerWishes = { waitMs: undefined, respondAsync: false, timeoutMs: undefined, idempotencyKey: undefined }

const MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** Reads what the caller asks of Attache itself (contract §3) from the fields as received. */
export function wishesOf(fields: Fields): CallerWishes {
  const prefer = fieldList(fields, 'prefer')
  const timeout = field(fields, 'attache-timeout')
  const idempotencyKey = field(fields, 'idempotency-key')
  if (prefer === undefined && timeout === undefined && idempotencyKey === undefined) return NO_WISHES
  const preferences = prefer === undefined ? [] : preferencesOf(prefer)
  const wait = preferences.map((preference) => /^wait\s*=\s*"?(\d{1,9})"?$/i.exec(preference)?.[1]).find((seconds) => seconds !== undefined)
  return {
    // RFC 7240 §2: a preference that makes no sense is ignored, not refused
    waitMs: wait === undefined ? undefined : Number(wait) * 1000,
    respondAsync: preferences.some((preference) => /^respond-async$/i.test(preference)),
    timeoutMs: timeout === undefined ? undefined : timeoutOf(timeout),
    idempotencyKey
  }
}

/** What is left of `Prefer` for the provider: everything but the preferences that were meant for us. */
export function withoutWishes(fields: Fields): Fields {
  const prefer = fieldList(fields, 'prefer')
  if (prefer === undefined) return fields
  const others = preferencesOf(prefer).filter((preference) => !/^(?:wait\s*=|respond-async$)/i.test(preference))
  const rest = withoutField(fields, 'prefer')
  return others.length === 0 ? rest : [...rest, 'Prefer', others.join(', ')]
}

function preferencesOf(prefer: string): string[] {
  return prefer
    .split(',')
    .map((preference) => (preference.split(';')[0] ?? '').trim())
    .filter((preference) => preference !== '')
}

function timeoutOf(text: string): number {
  const [, amount, unit] = DURATION.exec(text.trim()) ?? []
  const ms = amount === undefined || unit === undefined ? 0 : Number(amount) * (MS[unit] ?? 0)
  if (ms <= 0) throw new Problem('bad-request', { detail: 'Attache-Timeout is a duration such as 250ms, 5s or 2m' })
  return ms
}
