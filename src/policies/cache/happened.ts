import type { Event } from '../../exchange/events.ts'

/** What a cache reports for nearly every request, so always the same objects. */
export function eventsOf(upstream: string) {
  return {
    hit: { kind: 'cache', upstream, result: 'hit' },
    miss: { kind: 'cache', upstream, result: 'miss' },
    stale: { kind: 'cache', upstream, result: 'stale' },
    collapsed: { kind: 'cache', upstream, result: 'collapsed' },
    bypass: { kind: 'cache', upstream, result: 'bypass' },
    avoided: { kind: 'call-avoided', upstream, reason: 'cache' },
    avoidedStale: { kind: 'call-avoided', upstream, reason: 'stale' },
    avoidedCollapsed: { kind: 'call-avoided', upstream, reason: 'collapsed' }
  } as const satisfies Record<string, Event>
}
