import type { Policy, Send } from '../exchange/chain.ts'
import { pathOf, type Request, type Response } from '../exchange/message.ts'
import { choice, list, optional, path, route, section, type Decoded } from '../exchange/options.ts'
import { Problem } from '../exchange/problem.ts'
import type { UpstreamTools } from '../exchange/tools.ts'
import { operationRouter } from '../http/operation-router.ts'

export const operationsOptions = section(
  'Which operations of the provider the app may use',
  {
    openapi: optional(path('An OpenAPI description whose operations are allowed')),
    allow: optional(list('Allowed operations; nothing listed, everything allowed', route('METHOD /template'))),
    unknown: choice('What happens to an operation not listed', ['block', 'report'], 'block')
  },
  {}
)
export type OperationsOptions = Decoded<typeof operationsOptions>

/**
 * Keeps operations that were not agreed away from the provider (no traffic to endpoints that do not exist).
 *
 * `allow` already holds what the OpenAPI description lists. Rejects with `unknown-operation`: 405 where the path is known
 * with other methods (RFC 9110 §15.5.6), else 404, both with the nearest operations as `suggestions`.
 */
export function guard(options: OperationsOptions, tools: UpstreamTools): Policy {
  const { upstream, report } = tools
  const { allow = [] } = options
  const operations = operationRouter(allow)
  const allowed = new Set(allow)

  return function guard(request, next) {
    // an operation may be named by a pattern of another section that matches it as well
    const isAllowed = allow.length === 0 || allowed.has(request.operation) || operations.find(request.method, pathOf(request.target)) !== undefined
    return isAllowed ? next(request) : refuse(request, next)
  }

  async function refuse(request: Request, next: Send): Promise<Response> {
    report({ kind: 'unknown-operation', upstream, method: request.method })
    if (options.unknown === 'report') return next(request)
    report({ kind: 'call-avoided', upstream, reason: 'guard' })
    const requestPath = pathOf(request.target)
    const methods = operations.allowedMethods(requestPath)
    const suggestions = operations.nearest(request.method, requestPath)
    if (methods.length === 0) {
      throw new Problem('unknown-operation', {
        status: 404,
        detail: `${upstream} has no such operation among those allowed by operations.allow`,
        extra: { suggestions }
      })
    }
    throw new Problem('unknown-operation', {
      status: 405,
      detail: `${upstream} knows this path, but only with ${methods.join(', ')}`,
      extra: { suggestions },
      fields: ['Allow', methods.join(', ')]
    })
  }
}
