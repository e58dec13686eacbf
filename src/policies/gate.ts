import type { Policy } from '../exchange/chain.ts'
import { duration, map, type Decoded } from '../exchange/options.ts'
import type { UpstreamTools } from '../exchange/tools.ts'
import type { Store } from '../state/store.ts'

export const waitDefaultOptions = map('Gate length by status where the provider sends no Retry-After', duration('Wait'), {})
export type WaitDefaultOptions = Decoded<typeof waitDefaultOptions>

export function gate(_options: WaitDefaultOptions, _tools: UpstreamTools & { store: Store; keyOf: (target: string) => string }): Policy {
  return async function gate(request, next) {
    return next(request)
  }
}
