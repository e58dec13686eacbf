import type { Policy } from '../exchange/chain.ts'
import { choice, list, optional, path, route, section, type Decoded } from '../exchange/options.ts'
import type { UpstreamTools } from '../exchange/tools.ts'

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

export function guard(_options: OperationsOptions, _tools: UpstreamTools): Policy {
  return async function guard(request, next) {
    return next(request)
  }
}
