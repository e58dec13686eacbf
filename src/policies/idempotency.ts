import type { Policy } from '../exchange/chain.ts'
import type { UpstreamTools } from '../exchange/tools.ts'
import type { Store } from '../state/store.ts'

export function idempotency(_tools: UpstreamTools & { store: Store }): Policy {
  return async function idempotency(request, next) {
    return next(request)
  }
}
