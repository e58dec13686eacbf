import type { Policy } from '../exchange/chain.ts'
import type { UpstreamTools } from '../exchange/tools.ts'

export function notices(_tools: UpstreamTools): Policy {
  return async function notices(request, next) {
    return next(request)
  }
}
