import { routeMatcher } from './route.ts'

/** RFC 9110 §9.2.2; TRACE never gets this far. */
const IDEMPOTENT = new Set(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE'])

/**
 * Builds the judge of which requests may be sent again although an attempt may have reached the provider: idempotent
 * methods, those with an `Idempotency-Key`, declared `routes`; never those listed in `never`.
 */
export function repeatableBy(routes: readonly string[], never: readonly string[]): (method: string, path: string, hasKey: boolean) => boolean {
  const isDeclared = routeMatcher(routes)
  const isForbidden = routeMatcher(never)
  return (method, path, hasKey) => !isForbidden(method, path) && (IDEMPOTENT.has(method) || hasKey || isDeclared(method, path))
}
