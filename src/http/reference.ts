/**
 * The target (path and query behind the base) a reference in an answer points to, undefined where that is another origin
 * or outside the base: nobody may invalidate somebody else's answers (RFC 9111 §4.4).
 *
 * `base` is the upstream's base URL, undefined where none is known; then only relative references are understood.
 */
export function referencedTarget(reference: string, requestTarget: string, base: URL | undefined): string | undefined {
  const origin = base?.origin ?? UNKNOWN_ORIGIN
  const prefix = (base?.pathname ?? '').replace(/\/$/, '')
  const resolved = URL.parse(reference, new URL(prefix + requestTarget, origin))
  if (resolved === null || resolved.origin !== origin) return undefined
  if (!resolved.pathname.startsWith(`${prefix}/`)) return undefined
  return resolved.pathname.slice(prefix.length) + resolved.search
}

// reserved for names that cannot exist (RFC 6761 §6.4): no reference can be on it
const UNKNOWN_ORIGIN = 'http://upstream.invalid'
