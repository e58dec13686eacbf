import type { Policy } from '../../exchange/chain.ts'
import { choice, duration, flag, list, map, route, section, size, text, type Decoded } from '../../exchange/options.ts'
import type { UpstreamTools } from '../../exchange/tools.ts'
import type { Store } from '../../state/store.ts'

export const cacheOptions = section(
  'Which answers may be kept and for how long (RFC 9111)',
  {
    mode: choice('One identity per key, or the rules for shared caches', ['private', 'shared'], 'private'),
    heuristic: flag('Heuristic freshness (RFC 9111 §4.2.2), at most 10 % of the age since Last-Modified', false),
    maxBytes: size('All stored answers of this upstream together', '64MiB'),
    maxEntryBytes: size('One stored answer', '1MiB'),
    negative: map('Freshness of "no such thing" answers by status', duration('Freshness; 0s switches it off'), {}),
    staleIfError: duration('How long past freshness an answer may stand in for an error', '0s'),
    staleWhileRevalidate: duration('How long past freshness an answer may be served while it is validated', '0s'),
    vary: list('Request fields that are always part of the key', text('Field name'), ['Accept', 'Accept-Language']),
    rules: list('Local freshness where the provider gives none', section('A rule', { match: route('METHOD /template'), ttl: duration('Freshness') }), [])
  },
  {}
)
export type CacheOptions = Decoded<typeof cacheOptions>

export type CacheTools = UpstreamTools & {
  readonly store: Store
  /** The identity of the credential that would serve this target; part of every key. */
  readonly identityOf: (credential: string | undefined, target: string) => string
}

/** A cache policy with the handles the admin API needs. */
export type Cache = {
  readonly policy: Policy
  /** Drops stored answers whose target begins with the prefix; gives how many. */
  purge(prefix: string): number
  readonly bytes: number
  readonly entries: number
}

export function cache(_options: CacheOptions, _tools: CacheTools): Cache {
  return {
    policy: async function cache(request, next) {
      return next(request)
    },
    purge: () => 0,
    bytes: 0,
    entries: 0
  }
}
