import type { Tools } from '../exchange/tools.ts'
import type { Backend } from './backend.ts'
import { connectRedis, count, garbage, pair } from './redis-connection.ts'

const SCAN_COUNT = 500
const MOST_KEYS = 100_000
const LONGEST_TTL_MS = 10 * 365 * 86_400_000

const PUT = `
  local fence = tonumber(ARGV[3])
  if fence then
    if tonumber(redis.call('HGET', KEYS[1], 'f') or 0) > fence then return 0 end
    if tonumber(redis.call('GET', KEYS[2]) or 0) < fence then redis.call('SET', KEYS[2], ARGV[3]) end
    redis.call('HSET', KEYS[1], 'v', ARGV[1], 'f', ARGV[3])
  else
    redis.call('HSET', KEYS[1], 'v', ARGV[1])
  end
  if ARGV[2] == '' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
  return 1`

const GET = `return { redis.call('HGET', KEYS[1], 'v'), redis.call('PTTL', KEYS[1]) }`

const ADD = `
  local value = redis.call('INCRBYFLOAT', KEYS[1], ARGV[1])
  if redis.call('PTTL', KEYS[1]) == -1 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
  return value`

// The time as a floor, so that fences go on growing where Redis has lost its data.
const LOCK = `
  if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return false end
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local fence = math.max(tonumber(redis.call('GET', KEYS[2]) or 0) + 1, tonumber(ARGV[3]) + 1, now)
  fence = string.format('%.0f', fence)
  redis.call('SET', KEYS[2], fence)
  return fence`

const UNLOCK = `if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1`

/**
 * State in a Redis (5 or later) that replicas share; every key begins with `attache:` and `scope`. Rejects with
 * `Unavailable`, also where Redis answers but cannot be written to.
 */
export async function redisBackend(url: URL, scope: string, tools: Tools, lost: (cause: unknown) => void, attempt: 'first' | 'again'): Promise<Backend> {
  const { clock } = tools
  const name = (kind: string, key: string): string => `attache:${scope}${kind}:${key}`
  const fences = name('fence', '')
  const realTtl = (ttlMs: number): string => String(Math.ceil(Math.min(Math.max(1, clock.realMs(ttlMs)), LONGEST_TTL_MS)))

  const { call, close } = await connectRedis(url, name('probe', ''), tools, lost, attempt)

  return {
    async get(key) {
      const [value, ttl] = pair(await call('EVAL', GET, '1', name('record', key)))
      if (value === null) return undefined
      if (!Buffer.isBuffer(value) || typeof ttl !== 'number') throw garbage()
      return { value, ttlMs: ttl < 0 ? undefined : ttl / clock.realMs(1) }
    },
    async put(key, value, ttlMs, fence) {
      const ttl = ttlMs === undefined ? '' : realTtl(ttlMs)
      return count(await call('EVAL', PUT, '2', name('record', key), fences, value, ttl, fence === undefined ? '' : String(fence))) === 1
    },
    async delete(key) {
      await call('DEL', name('record', key), name('counter', key))
    },
    async keys(prefix) {
      const before = name('record', '')
      const found = new Set<string>()
      let cursor = '0'
      do {
        const [next, page] = pair(await call('SCAN', cursor, 'MATCH', `${literally(before + prefix)}*`, 'COUNT', String(SCAN_COUNT)))
        if (!Array.isArray(page)) throw garbage()
        for (const key of page) found.add(String(key).slice(before.length))
        cursor = String(next)
      } while (cursor !== '0' && found.size < MOST_KEYS)
      return [...found]
    },
    async add(key, amount, ttlMs) {
      // adding nothing is looking: no reason to keep a counter for it
      if (amount === 0) return count((await call('GET', name('counter', key))) ?? 0)
      return count(await call('EVAL', ADD, '1', name('counter', key), String(amount), realTtl(ttlMs)))
    },
    async lock(key, holder, ttlMs, above) {
      const fence = await call('EVAL', LOCK, '2', name('lock', key), fences, holder, realTtl(ttlMs), String(above))
      return fence === null ? undefined : count(fence)
    },
    async unlock(key, holder) {
      await call('EVAL', UNLOCK, '1', name('lock', key), holder)
    },
    close
  }
}

/** A prefix as a pattern that means only itself. */
function literally(text: string): string {
  return text.replaceAll(/[\\*?[\]]/g, '\\$&')
}
