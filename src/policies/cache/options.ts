import { choice, duration, flag, list, map, optional, route, section, size, text, type Decoded } from '../../exchange/options.ts'

export const cacheOptions = section(
  'Which answers may be kept and for how long (RFC 9111)',
  {
    mode: choice(
      'private: a cache of one identity, errors of the server are never kept. shared: the rules for shared caches (s-maxage, private, RFC 9111 §3.5), CDN-Cache-Control is obeyed, and errors are kept where the provider gives them a lifetime',
      ['private', 'shared'],
      'private'
    ),
    heuristic: flag('Heuristic freshness (RFC 9111 §4.2.2), at most 10 % of the age since Last-Modified', false),
    maxBytes: size('All stored answers of this upstream together', '64MiB'),
    maxEntryBytes: size('One stored answer', '1MiB'),
    negative: map('Freshness of "no such thing" answers by status', duration('Freshness; 0s: such answers are never kept'), {}),
    staleIfError: optional(
      duration(
        'How long past freshness an answer may stand in for an error, where the provider does not say; not set: one hour while the provider cannot be reached, never for error answers'
      )
    ),
    staleWhileRevalidate: duration('How long past freshness an answer may be served while it is validated', '0s'),
    secondTier: flag(
      'Stored answers are also kept in the Redis of state, compressed and sealed, for other replicas and for after a restart; needs state: redis://',
      false
    ),
    vary: list('Request fields that are always part of the key', text('Field name'), ['Accept', 'Accept-Language']),
    rules: list('Local freshness where the provider gives none', section('A rule', { match: route('METHOD /template'), ttl: duration('Freshness') }), [])
  },
  {}
)
export type CacheOptions = Decoded<typeof cacheOptions>
