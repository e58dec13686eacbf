import type { Response } from '../../exchange/message.ts'
import { tightestQuota, type Quota } from '../../http/rate-limit.ts'
import { retryAfterMs } from '../../http/retry-after.ts'
import type { Verdict } from './turnstile.ts'

// One misread header must not lock a provider out for years; after a day one probe asks again.
const LONGEST_MS = 86_400_000

export type Judgement = { readonly verdict: Verdict; readonly quota: Quota | undefined }

const FINE: Judgement = { verdict: { kind: 'fine' }, quota: undefined }

/**
 * What an answer says about further calls, and the quota it announces.
 *
 * 429 and 503 ask for a pause: their `Retry-After`, else the agreement's `waitDefault` for the status, else nothing
 * beyond what closed the gate before. An answer that leaves nothing of a quota asks for a pause until it is whole again.
 */
export function verdictOn(response: Response, waitDefault: ReadonlyMap<number, number>, wallNowMs: number): Judgement {
  const { status, fields } = response
  const quota = tightestQuota(fields, wallNowMs)
  if (status < 400 && quota === undefined) return FINE
  const isRefusal = status === 429 || status === 503
  const askedMs = isRefusal ? retryAfterMs(fields, wallNowMs) : undefined
  const usedUpMs = quota?.remaining === 0 ? quota.resetMs : 0
  const pauseMs = Math.min(LONGEST_MS, Math.max(askedMs ?? waitDefault.get(status) ?? 0, usedUpMs))
  if (pauseMs > 0) return { verdict: { kind: 'wait', ms: pauseMs }, quota }
  if (isRefusal && askedMs === undefined) return { verdict: { kind: 'wait-again' }, quota }
  return { verdict: status >= 500 ? { kind: 'none' } : { kind: 'fine' }, quota }
}
