import { resolve } from 'node:path'
import type { Clock } from '../exchange/clock.ts'
import type { Tools } from '../exchange/tools.ts'
import { memoryStore } from './memory.ts'
import { sqliteBackend } from './sqlite.ts'
import { withStandIn } from './stand-in.ts'
import type { SecondTier } from './second-tier.ts'
import type { Store } from './store.ts'

/**
 * Opens the state: `memory:`, `sqlite:/abs/path`, `redis://[USER:PASSWORD@]HOST:PORT/DB` or `rediss://…` (TLS).
 *
 * A place that is not available is no error: the store works from memory and goes over when it is. Throws only on a
 * location that is none of the above (the text of it, which may hold a password, is not repeated).
 */
export async function openStore(location: string, tools: Tools): Promise<Store> {
  if (location === 'memory:' || location === 'memory') return memoryStore(tools)
  const scope = scopeOf(tools.clock)
  if (location.startsWith('sqlite:') && location.length > 'sqlite:'.length) {
    const file = resolve(location.slice('sqlite:'.length))
    return withStandIn('sqlite', (_lost, attempt) => sqliteBackend(file, scope, tools, attempt), tools)
  }
  const url = redisUrl(location)
  // loaded only where it is used: its client costs every start 40 ms and 3 MiB
  const { redisBackend } = await import('./redis.ts')
  return withStandIn('redis', (lost, attempt) => redisBackend(url, scope, tools, lost, attempt), tools)
}

/** Opens the place beside the state where replicas share cached answers; undefined where the state is no Redis. Never rejects. */
export async function openSecondTier(location: string, tools: Tools): Promise<SecondTier | undefined> {
  if (!location.startsWith('redis')) return undefined
  const { redisSecondTier } = await import('./second-tier.ts')
  return redisSecondTier(redisUrl(location), scopeOf(tools.clock), tools)
}

function redisUrl(location: string): URL {
  const url = URL.parse(location)
  if (url === null || !/^rediss?:$/.test(url.protocol) || url.hostname === '' || !/^(?:\/\d{0,5})?$/.test(url.pathname)) {
    throw new Error('state is none of memory:, sqlite:PATH, redis://HOST:PORT/DB')
  }
  return url
}

/** Times in a rehearsal (`--speed`) mean something else: its records are kept apart from the real ones. */
function scopeOf(clock: Clock): string {
  const speed = Math.round(1 / clock.realMs(1))
  return speed === 1 ? '' : `x${speed}:`
}
