/**
 * Our member of `Cache-Status` (RFC 9211), without the cache's name, which the server puts in front. `detail` values are
 * tokens of our own.
 */

/** Why a request went upstream (RFC 9211 §2.2). */
export type ForwardReason = 'bypass' | 'method' | 'uri-miss' | 'vary-miss' | 'miss' | 'request' | 'stale' | 'partial'

/** Answered from the store without going upstream; `ttlS` is negative past freshness. */
export function hit(ttlS: number, detail?: string): string {
  return detail === undefined ? `hit; ttl=${ttlS}` : `hit; ttl=${ttlS}; detail=${detail}`
}

export type Forwarded = {
  /** Status the provider gave; undefined where none came. */
  readonly status?: number | undefined
  readonly isStored?: boolean
  readonly isCollapsed?: boolean
  readonly ttlS?: number
  readonly detail?: string | undefined
}

/** Went upstream. */
export function forwarded(reason: ForwardReason, more: Forwarded = {}): string {
  let text = `fwd=${reason}`
  if (more.status !== undefined) text += `; fwd-status=${more.status}`
  if (more.isStored === true) text += '; stored'
  if (more.isCollapsed === true) text += '; collapsed'
  if (more.ttlS !== undefined) text += `; ttl=${more.ttlS}`
  if (more.detail !== undefined) text += `; detail=${more.detail}`
  return text
}
