import type { Policy } from '../exchange/chain.ts'
import { duration, integer, section, type Decoded } from '../exchange/options.ts'
import type { UpstreamTools } from '../exchange/tools.ts'
import type { Store } from '../state/store.ts'

export const breakerOptions = section(
  'After repeated failures nothing at all is sent for a while',
  {
    failures: integer('Consecutive failed attempts that open it', { minimum: 1 }, 5),
    cooldown: duration('First pause', '60s'),
    maxCooldown: duration('The pause doubles up to here', '300s')
  },
  {}
)
export type BreakerOptions = Decoded<typeof breakerOptions>

export function breaker(_options: BreakerOptions, _tools: UpstreamTools & { store: Store }): Policy {
  return async function breaker(request, next) {
    return next(request)
  }
}
