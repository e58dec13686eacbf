import type { Policy } from '../exchange/chain.ts'
import type { UpstreamTools } from '../exchange/tools.ts'
import type { Credentials } from '../tokens/source.ts'

export function authorize(_options: { baseUrl: string }, _tools: UpstreamTools & { credentials: Credentials }): Policy {
  return async function authorize(request, next) {
    return next(request)
  }
}
