import type { Policy } from '../exchange/chain.ts'
import { duration, integer, list, number, route, section, size, type Decoded } from '../exchange/options.ts'
import type { UpstreamTools } from '../exchange/tools.ts'

export const retryOptions = section(
  'Which failures are asked again, how often and how far apart',
  {
    attempts: integer('Attempts in all', { minimum: 1, maximum: 10 }, 3),
    backoff: list('The ladder: wait before attempt 2, 3, …; the last step repeats', duration('A step'), ['10s', '30s', '60s']),
    jitter: number('Waits are lengthened by up to this share, never shortened', { minimum: 0, maximum: 1 }, 0.2),
    on: list('Statuses worth asking again', integer('Status', { minimum: 400, maximum: 599 }), [408, 425, 429, 500, 502, 503, 504]),
    routes: list('Operations declared safe to repeat although their method is not', route('METHOD /template'), []),
    never: list('Operations never repeated', route('METHOD /template'), []),
    bufferBytes: size('Request bodies up to here can be replayed', '1MiB'),
    budget: number('Retries at most this share of the last minute’s requests (10 a second are always allowed)', { minimum: 0, maximum: 1 }, 0.2)
  },
  {}
)
export type RetryOptions = Decoded<typeof retryOptions>

export function retry(_options: RetryOptions, _tools: UpstreamTools): Policy {
  return async function retry(request, next) {
    return next(request)
  }
}
