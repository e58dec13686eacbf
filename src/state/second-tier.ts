import { randomBytes } from 'node:crypto'
import type { Tools } from '../exchange/tools.ts'
import { connectRedis, count, garbage, type RedisConnection } from './redis-connection.ts'
import { supervised } from './supervised.ts'

/** Where a record lies: all names are the caller's and say nothing to whoever reads them in the tier. */
export type Place = { readonly scope: string; readonly shelf: string; readonly slot: string }

/** What the tier showed at one moment. */
export type Look = {
  readonly value: Buffer | undefined
  /** Changes with every `drop` of the shelf or `dropAll` of the scope: a record is only good in the generation it was made in. */
  readonly generation: string
  /** The tier's own time in clock milliseconds: comparable between replicas whose clocks differ. */
  readonly at: number
}

/**
 * Bytes that replicas share and that may be lost at any time. Apart from the `Store` and its mirror, so that large
 * records can never push a token out. Nothing here rejects or takes longer than 50 ms; while the tier is away everything is
 * absent at once.
 */
export type SecondTier = {
  /** Undefined where the tier is away. */
  look(place: Place): Promise<Look | undefined>
  /** Keeps a record for at most a day, unless its shelf or scope was dropped since the look. */
  put(place: Place, look: Look, value: Buffer, ttlMs: number): Promise<void>
  /** Drops everything on the shelf, and what was looked for before and is put there later. */
  drop(scope: string, shelf: string): Promise<void>
  /** The same for every shelf of the scope. */
  dropAll(scope: string): Promise<void>
  close(): Promise<void>
}

// All in real milliseconds: the place outside does not run faster under --speed.
const PUT_MS = 1_000

const LONGEST_TTL_MS = 86_400_000
// A dropped shelf is remembered for longer than any answer may be on its way, a scope for longer than its last record.
const REMEMBERED_MS = 3_600_000
const SCOPE_TTL_MS = 2 * LONGEST_TTL_MS
// More records of one resource than this come from somebody who varies on purpose.
const SLOTS = 64
/** Records on their way to Redis; further ones are not kept. */
const UNDER_WAY_BYTES = 8 * 1024 * 1024

// A scope without a generation gets one before anything is kept in it: records without a known one are lost records.
const LOOK = `
  local scope = redis.call('GET', KEYS[1])
  if not scope then
    scope = ARGV[2]
    redis.call('SET', KEYS[1], scope, 'PX', ARGV[3])
  end
  local time = redis.call('TIME')
  return { scope, redis.call('HGET', KEYS[2], 'g') or '0', redis.call('HGET', KEYS[2], ARGV[1]), time[1], time[2] }`

// Generation and records of a shelf are one key: Redis can only lose them together.
const PUT = `
  if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
  if (redis.call('HGET', KEYS[2], 'g') or '0') ~= ARGV[2] then return 0 end
  if redis.call('HLEN', KEYS[2]) > ${SLOTS} then
    redis.call('DEL', KEYS[2])
    redis.call('HSET', KEYS[2], 'g', ARGV[2])
  end
  redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
  if redis.call('PTTL', KEYS[2]) < tonumber(ARGV[5]) then redis.call('PEXPIRE', KEYS[2], ARGV[5]) end
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
  return 1`

const DROP = `
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], 'g', ARGV[1])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 1`

/**
 * A second tier in a Redis (5 or later). Where Redis is gone, stopped or slow, the callers of that moment lose 50 ms at
 * most; a probe every 100 ms to 2 s (real time) finds out when it is back. What was dropped meanwhile is made good before
 * it is used again, by dropping the whole scope. One `warning` event an outage, at most one a minute.
 */
export async function redisSecondTier(url: URL, prefix: string, tools: Tools): Promise<SecondTier> {
  const { clock } = tools
  let underWayBytes = 0
  // scopes in which something was dropped that Redis may not have heard of
  const owed = new Set<string>()

  const inClockTime = (realMs: number): number => realMs / clock.realMs(1)
  const scopeKey = (scope: string): string => `attache:${prefix}answers:${scope}`
  const shelfKey = (scope: string, shelf: string): string => `${scopeKey(scope)}:${shelf}`

  /** Until nothing is owed at the very moment of going up. */
  async function settle(connection: RedisConnection): Promise<void> {
    for (let [scope] = owed; scope !== undefined; [scope] = owed) {
      await connection.call('SET', scopeKey(scope), newGeneration(), 'PX', realTtl(SCOPE_TTL_MS))
      owed.delete(scope)
    }
  }

  const place = await supervised<RedisConnection>(
    {
      open: (lost, attempt) => connectRedis(url, `attache:${prefix}probe:`, tools, lost, attempt),
      settle,
      about: 'cache',
      unexpected: 'the second tier of the cache failed unexpectedly',
      consequence: 'answers are not shared until it is back'
    },
    tools
  )

  function attempt<T>(work: (connection: RedisConnection) => Promise<T>): Promise<T | undefined> {
    return place.attempt<T | undefined>(work, () => undefined)
  }

  function look({ scope, shelf, slot }: Place): Promise<Look | undefined> {
    return attempt(async ({ call }) => {
      const reply = await call('EVAL', LOOK, '2', scopeKey(scope), shelfKey(scope, shelf), slot, newGeneration(), realTtl(SCOPE_TTL_MS))
      if (!Array.isArray(reply) || reply.length !== 5) throw garbage()
      const [ofScope, ofShelf, value, seconds, micros] = reply
      if (value !== null && !Buffer.isBuffer(value)) throw garbage()
      return { value: value ?? undefined, generation: `${ofScope} ${ofShelf}`, at: inClockTime(count(seconds) * 1000 + count(micros) / 1000) }
    })
  }

  async function put({ scope, shelf, slot }: Place, { generation }: Look, value: Buffer, ttlMs: number): Promise<void> {
    if (underWayBytes + value.length > UNDER_WAY_BYTES) return
    const [ofScope = '', ofShelf = ''] = generation.split(' ')
    const ttl = realTtl(Math.min(ttlMs, LONGEST_TTL_MS))
    underWayBytes += value.length
    await attempt(({ callWithin }) =>
      callWithin(PUT_MS, 'EVAL', PUT, '2', scopeKey(scope), shelfKey(scope, shelf), ofScope, ofShelf, slot, value, ttl, realTtl(SCOPE_TTL_MS))
    )
    underWayBytes -= value.length
  }

  function realTtl(ms: number): string {
    return String(Math.ceil(Math.max(1, clock.realMs(ms))))
  }

  /** Makes a change that must not be forgotten: where Redis may not have heard of it, the scope is dropped before its next use. */
  async function change(scope: string, work: (connection: RedisConnection) => Promise<unknown>): Promise<void> {
    const isDone = await attempt(async (connection) => {
      await work(connection)
      return true
    })
    if (isDone === true || place.isClosed()) return
    owed.add(scope)
    await attempt(settle)
  }

  return {
    look,
    put,
    drop: (scope, shelf) => change(scope, ({ call }) => call('EVAL', DROP, '1', shelfKey(scope, shelf), newGeneration(), realTtl(REMEMBERED_MS))),
    dropAll: (scope) => change(scope, ({ call }) => call('SET', scopeKey(scope), newGeneration(), 'PX', realTtl(SCOPE_TTL_MS))),
    close: () => place.close()
  }
}

function newGeneration(): string {
  return randomBytes(12).toString('base64url')
}
