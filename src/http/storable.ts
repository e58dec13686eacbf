import type { ResponseControl } from './cache-control.ts'
import { fieldList, hasField, keepFields, type Fields } from './fields.ts'
import { HEURISTICALLY_CACHEABLE } from './freshness.ts'

/** What decides whether an answer may be stored, apart from its directives (RFC 9111 §3). */
export type Circumstances = {
  readonly mode: 'private' | 'shared'
  /** The request as sent upstream bears credentials. */
  readonly isAuthenticated: boolean
  /** The lifetime was set by the operator: an agreement out of band counts as permission. */
  readonly isLocallyAllowed: boolean
}

/** Statuses whose caching rules this cache knows: for `must-understand` (RFC 9111 §5.2.2.3). Neither 206 nor 304 are kept. */
const UNDERSTOOD = new Set([
  200, 201, 202, 203, 204, 205, 300, 301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421,
  422, 426, 428, 429, 431, 451, 500, 501, 502, 503, 504, 505
])

/** Never kept: they are about one part, one moment, or the credentials, whatever else the answer says (428, 429, 431 and 511 by RFC 6585). */
const NEVER_KEPT = new Set([206, 304, 401, 403, 407, 412, 416, 421, 428, 429, 431, 511])

/**
 * Whether an answer to GET or HEAD may be stored (RFC 9111 §3).
 *
 * Errors of the server are kept only by a cache that plays a shared one, and there only as the provider says; a private
 * cache must never repeat an outage to the one app it serves.
 */
export function isStorable(status: number, fields: Fields, control: ResponseControl, circumstances: Circumstances): boolean {
  const { mode, isAuthenticated, isLocallyAllowed } = circumstances
  const isShared = mode === 'shared'
  if (status < 200 || NEVER_KEPT.has(status)) return false
  if (status >= 500 && !isShared) return false
  const isUnderstood = UNDERSTOOD.has(status)
  if (control.isMustUnderstand && !isUnderstood) return false
  // must-understand takes the place of no-store where it is obeyed
  if (control.isNoStore && !control.isMustUnderstand) return false
  if (isShared && control.isPrivate) return false
  if (isShared && isAuthenticated && !(control.isPublic || control.isMustRevalidate || control.sharedMaxAgeS !== undefined)) return false
  return (
    control.isPublic ||
    (!isShared && control.isPrivate) ||
    control.maxAgeS !== undefined ||
    (isShared && control.sharedMaxAgeS !== undefined) ||
    (!control.isTargeted && hasField(fields, 'expires')) ||
    isLocallyAllowed ||
    HEURISTICALLY_CACHEABLE.has(status)
  )
}

const CONNECTION_FIELDS = new Set(['connection', 'proxy-connection', 'keep-alive', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'http2-settings'])
/** Belong to the proxy they were meant for (RFC 9111 §3.1). */
const PROXY_FIELDS = new Set(['proxy-authenticate', 'proxy-authentication-info', 'proxy-authorization'])

/**
 * The fields of an answer that are stored (RFC 9111 §3.1): all, unknown ones included, but those of the connection and of
 * a proxy, `Age` (generated anew at each use) and what the qualified `no-cache` and, in a shared cache, `private` list.
 */
export function storableFields(fields: Fields, control: ResponseControl, mode: 'private' | 'shared'): string[] {
  const listed = [...control.noCacheFields, ...(mode === 'shared' ? control.privateFields : []), ...connectionNamed(fields)]
  return keepFields(fields, (name) => {
    const lower = name.toLowerCase()
    return lower !== 'age' && !CONNECTION_FIELDS.has(lower) && !PROXY_FIELDS.has(lower) && !listed.includes(lower)
  })
}

function connectionNamed(fields: Fields): string[] {
  return (fieldList(fields, 'connection') ?? '')
    .toLowerCase()
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '')
}
