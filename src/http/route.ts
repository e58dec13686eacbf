/** `METHOD /template` patterns of the config: `*` is one segment, `**` the rest (including nothing), no method is any. */
export type RouteMatcher = (method: string, path: string) => boolean

/** Whether any of the patterns matches; an empty list matches nothing. */
export function routeMatcher(patterns: readonly string[]): RouteMatcher {
  const compiled = patterns.map(compile)
  return function matches(method, path) {
    if (compiled.length === 0) return false
    const plain = unescapeUnreserved(path)
    return compiled.some((route) => (route.method === undefined || route.method === method) && route.path.test(plain))
  }
}

/** The first pattern that matches, as its index. */
export function firstRoute(patterns: readonly string[]): (method: string, path: string) => number {
  const matchers = patterns.map((pattern) => routeMatcher([pattern]))
  return (method, path) => matchers.findIndex((matches) => matches(method, path))
}

/**
 * Decodes percent-encoded unreserved characters: `/v2/%73ms` and `/v2/sms` are the same resource (RFC 3986 §6.2.2.2), so
 * a rule must not be evaded by spelling. Only for matching: what is sent stays as received.
 */
export function unescapeUnreserved(path: string): string {
  if (!path.includes('%')) return path
  return path.replaceAll(/%([0-9a-f]{2})/gi, (escaped, hex: string) => {
    const character = String.fromCharCode(Number.parseInt(hex, 16))
    return /[A-Za-z0-9\-._~]/.test(character) ? character : escaped
  })
}

function compile(pattern: string): { method: string | undefined; path: RegExp } {
  const space = pattern.indexOf(' ')
  const method = space === -1 ? undefined : pattern.slice(0, space)
  const template = space === -1 ? pattern : pattern.slice(space + 1)
  const source = template
    .split('/')
    .map((segment) =>
      segment === '*' || /^\{[^}]+\}$/.test(segment)
        ? '[^/]+'
        : segment.replaceAll(/[.+^${}()|[\]\\?]/g, '\\$&').replaceAll(/\*+/g, (stars) => (stars === '*' ? '[^/]*' : '.*'))
    )
    .join('/')
    // "/articles/**" covers /articles itself too
    .replace(/\/\.\*$/, '(?:/.*)?')
  return { method, path: new RegExp(`^${source}$`, 's') }
}
