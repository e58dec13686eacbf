import type { Policy } from '../exchange/chain.ts'
import { duration, section, type Decoded } from '../exchange/options.ts'
import type { UpstreamTools } from '../exchange/tools.ts'

/** One section for the two timeout rooms: `total` is the deadline's, the others are the attempt's. */
export const timeoutOptions = section(
  'How long each step may take',
  {
    connect: duration('TCP and TLS handshake', '5s'),
    response: duration('From sending an attempt to its header', '30s'),
    idle: duration('Between two pieces of a body', '30s'),
    total: duration('The whole request with all attempts and waits', '150s')
  },
  {}
)
export type TimeoutOptions = Decoded<typeof timeoutOptions>

export function deadline(_options: TimeoutOptions, _tools: UpstreamTools): Policy {
  return async function deadline(request, next) {
    return next(request)
  }
}
