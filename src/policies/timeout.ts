import type { Policy } from '../exchange/chain.ts'
import type { UpstreamTools } from '../exchange/tools.ts'
import type { TimeoutOptions } from './deadline.ts'

export function timeout(_options: Pick<TimeoutOptions, 'response' | 'idle'>, _tools: UpstreamTools): Policy {
  return async function timeout(request, next) {
    return next(request)
  }
}
