import { LRUCache } from 'lru-cache'
import type { Request, Response } from '../../exchange/message.ts'
import { field } from '../../http/fields.ts'
import { referencedTarget } from '../../http/reference.ts'

/** Clock times until which something may not have happened yet. */
export type Unsettled = {
  /** What was announced may be missing: "no such thing" is no news. */
  readonly absentUntil?: number
  /** What was written may not be there to read. */
  readonly unwrittenUntil?: number
}

/**
 * What is known to have changed at the provider, so that an answer that was under way at the time is not stored after it:
 * a GET that overtakes a PUT would otherwise bring the old state back.
 */
export type Changes = {
  /** A point in the order of things; take one before asking. */
  now(): number
  /** The target has changed. */
  mark(target: string, unsettled?: Unsettled): void
  /** Anything may have changed. */
  markAll(): void
  /** Whether the target may have changed since that point. */
  since(target: string, point: number): boolean
  /** Whether the target was announced (`Location` of a 201 or 202) so lately that its absence means "not yet". */
  isSettling(target: string, clockNow: number): boolean
  /** Whether a write to the target was accepted (202) so lately that what is read may still be the old state. */
  isUnwritten(target: string, clockNow: number): boolean
}

type Mark = { readonly point: number } & Required<Unsettled>

// Only what is remembered is bounded: about what has been forgotten the answer is always "may have changed".
const REMEMBERED_BYTES = 1024 * 1024
const MARK_BYTES = 128

export function changes(): Changes {
  let point = 0
  // everything up to here may have changed: the forgotten marks
  let horizon = 0
  const marks = new LRUCache<string, Mark>({
    maxSize: REMEMBERED_BYTES,
    sizeCalculation: (_mark, target) => target.length + MARK_BYTES,
    dispose(mark, _target, reason) {
      if (reason === 'evict') horizon = Math.max(horizon, mark.point)
    }
  })

  return {
    now: () => point,
    mark(target, { absentUntil = 0, unwrittenUntil = 0 } = {}) {
      const known = marks.peek(target)
      point += 1
      marks.set(target, {
        point,
        absentUntil: Math.max(absentUntil, known?.absentUntil ?? 0),
        unwrittenUntil: Math.max(unwrittenUntil, known?.unwrittenUntil ?? 0)
      })
    },
    markAll() {
      point += 1
      horizon = point
    },
    since: (target, earlier) => horizon > earlier || (marks.peek(target)?.point ?? 0) > earlier,
    isSettling: (target, clockNow) => (marks.peek(target)?.absentUntil ?? 0) > clockNow,
    isUnwritten: (target, clockNow) => (marks.peek(target)?.unwrittenUntil ?? 0) > clockNow
  }
}

/** The targets of this upstream an answer points to: candidates for invalidation (RFC 9111 §4.4). */
export function referenced(request: Request, response: Response, base: URL | undefined): string[] {
  return [field(response.fields, 'location'), field(response.fields, 'content-location')].flatMap((reference) => {
    return (reference === undefined ? undefined : referencedTarget(reference, request.target, base)) ?? []
  })
}
