/**
 * Request targets (RFC 9112 §3.2): kept byte for byte, or refused where two readers could understand two different paths.
 */

// unreserved and harmless characters in segments that are neither empty nor begin with a dot
const PLAIN = /^(?:\/[\w~!$&'()*+,=:@-][\w.~!$&'()*+,=:@-]*)+\/?(?:\?|$)/

/** Whether the path of a target reads the same to everybody: nothing in it is encoded, empty, or could be a dot segment. */
export function isPlainTarget(target: string): boolean {
  return PLAIN.test(target)
}

/** Why a target is refused, or undefined where it means one thing only. `target` is path and query as received. */
export function targetFault(target: string): string | undefined {
  if (!target.startsWith('/')) return 'only targets in origin form are accepted'
  const queryAt = target.indexOf('?')
  const path = queryAt === -1 ? target : target.slice(0, queryAt)
  // printable ASCII only; node lets bytes above 0x7f through
  if (/[^\x21-\x7e]/.test(target)) return 'the target contains a character that must be percent-encoded'
  if (target.includes('#')) return 'the target contains a fragment'
  if (path.includes('\\')) return 'the path contains a backslash'
  if (!path.includes('%') && !path.includes('/.') && !path.includes(';')) return undefined
  if (/%(?![0-9a-f]{2})/i.test(path)) return 'the path contains an incomplete percent-encoding'
  // bytes that are no UTF-8 are read in many ways, overlong forms of a dot among them
  if (!isUtf8(path)) return 'the path is no UTF-8 behind its percent-encoding'
  // what the path would be to a server that decodes first and splits later, however often; each round is shorter
  for (let decoded = path; ;) {
    if (/%(?:0[0-9a-f]|1[0-9a-f]|7f|5c)/i.test(decoded)) return 'the path contains an encoded control character or backslash'
    if (decoded.split('/').some(isDotSegment)) return 'the path contains a dot segment'
    const next = decoded.replaceAll(/%(2e|2f|25|3b)/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
    if (next === decoded) return undefined
    decoded = next
  }
}

function isUtf8(path: string): boolean {
  try {
    decodeURIComponent(path)
    return true
  } catch (error) {
    if (error instanceof URIError) return false
    throw error
  }
}

// `..;a=b` is `..` to servers that know path parameters
function isDotSegment(segment: string): boolean {
  const semicolon = segment.indexOf(';')
  const name = semicolon === -1 ? segment : segment.slice(0, semicolon)
  return name === '.' || name === '..'
}

/** A path as the most lenient of servers would read it: decoded to the end; case, parameters and empty segments ignored. Only to compare. */
export function looselyRead(path: string): string {
  let decoded = path
  for (let next = unescaped(decoded); next !== decoded; next = unescaped(decoded)) decoded = next
  const segments = decoded.toLowerCase().split('/')
  return segments
    .map((segment) => segment.split(';')[0])
    .filter((segment) => segment !== '')
    .join('/')
}

function unescaped(path: string): string {
  return path.replaceAll(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
}

/**
 * Rewrites references on the provider's own host to paths of the sidecar.
 *
 * `base` is the upstream's base URL with a trailing slash, `prefix` what stands for it here (`/finfo`, or empty where the
 * upstream has a port of its own). References to other hosts, or outside the base path, are handed over as they are.
 */
export function sidecarReference(reference: string, requestTarget: string, base: URL, prefix: string): string {
  const basePath = base.pathname.endsWith('/') ? base.pathname : `${base.pathname}/`
  const resolved = URL.parse(reference, new URL(basePath.slice(0, -1) + requestTarget, base.origin))
  if (resolved === null || resolved.origin !== base.origin || resolved.username !== '' || resolved.password !== '') return reference
  if (!resolved.pathname.startsWith(basePath)) return reference
  return `${prefix}/${resolved.pathname.slice(basePath.length)}${resolved.search}${resolved.hash}`
}

/** Rewrites every `<target>` of a `Link` field (RFC 8288 §3); quoted strings may hold angle brackets and commas. */
export function sidecarLinks(value: string, requestTarget: string, base: URL, prefix: string): string {
  return value.replaceAll(/<([^>]*)>|"(?:[^"\\]|\\.)*"/g, (whole, target: string | undefined) =>
    target === undefined ? whole : `<${sidecarReference(target, requestTarget, base, prefix)}>`
  )
}

/** The links of a `Link` field one by one, those of them that are well-formed in the simplest way (RFC 8288 §3). */
export function linksIn(value: string): string[] {
  return value.match(/<[^>]*>(?:\s*;\s*[^;,"\s=]+(?:="[^;,"\s]*"|=[^;,"\s]*)?)*/g) ?? []
}
