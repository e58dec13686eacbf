import type { Policy } from '../exchange/chain.ts'
import { choice, integer, list, number, optional, rate, section, textLike, type Decoded } from '../exchange/options.ts'
import type { UpstreamTools } from '../exchange/tools.ts'
import type { Store } from '../state/store.ts'

export const volumeOptions = section(
  'The agreed volume: limits in every window, and concurrency',
  {
    limits: list('At most this many attempts in any window', rate('COUNT/WINDOW'), []),
    key: optional(textLike('One bucket per value: path[N] behind the prefix, or header:NAME', '^(?:path\\[\\d+\\]|header:.+)$')),
    concurrency: integer('Attempts under way at once; more callers wait', { minimum: 1 }, 128),
    onExceed: choice('Wait for room, or answer volume-exhausted at once', ['wait', 'reject'], 'wait'),
    queue: integer('Callers that may wait; more get volume-exhausted', { minimum: 0 }, 1000),
    declared: optional(
      section('The volume declared to the provider', {
        perHour: optional(number('Calls', { minimum: 0 })),
        perDay: optional(number('Calls', { minimum: 0 })),
        perMonth: optional(number('Calls', { minimum: 0 })),
        averageKb: optional(number('Average request size', { minimum: 0 }))
      })
    )
  },
  {}
)
export type VolumeOptions = Decoded<typeof volumeOptions>

export function volume(_options: VolumeOptions, _tools: UpstreamTools & { store: Store }): Policy {
  return async function volume(request, next) {
    return next(request)
  }
}
