import { operationRouter } from '../http/operation-router.ts'
import { firstRoute } from '../http/route.ts'
import type { CredentialChoice, UpstreamOptions } from './schema.ts'

/** Which credential serves a path behind the upstream's prefix; undefined for `none`, and where no entry of the list matches. */
export function credentialSelector(choice: CredentialChoice = 'none'): (method: string, path: string) => string | undefined {
  if (typeof choice === 'string') {
    const only = choice === 'none' ? undefined : choice
    return () => only
  }
  const first = firstRoute(choice.map((entry) => entry.match ?? '/**'))
  return (method, path) => {
    const name = choice[first(method, path)]?.credential
    return name === 'none' ? undefined : name
  }
}

/** The name of an operation in metrics: the most specific template the configuration mentions, `other` where none matches. */
export function operationNamer(options: UpstreamOptions): (method: string, path: string) => string {
  const templates = [
    ...(options.operations.allow ?? []),
    ...options.cache.rules.map((rule) => rule.match),
    ...options.leases.map((rule) => rule.match),
    ...options.retry.routes,
    ...options.retry.never,
    ...options.lifecycle.map((rule) => rule.match),
    ...options.spend.map((rule) => rule.match)
  ]
  if (templates.length === 0) return () => 'other'
  const router = operationRouter(templates)
  return (method, path) => router.find(method, path) ?? 'other'
}
