import { setImmediate } from 'node:timers'
import { Redis } from 'ioredis'
import type { Tools } from '../exchange/tools.ts'
import { Unavailable, type Backend } from './backend.ts'

// Real milliseconds. A caller may lose 50 to a Redis that has just stopped; some of them go to our own event loop.
const CALL_MS = 40
const CONNECT_MS = { first: 500, again: 1_000 }

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
 * State in a Redis (5 or later) that replicas share; every key begins with `attache:` and `scope`.
 *
 * Tamed here: ioredis queues while offline, resends what was not answered, reconnects by itself and logs to the console.
 * None of that is wanted where a caller is waiting, so a connection is used once, each command waits 40 ms at most, and
 * `withStandIn` decides when to try anew. TLS of `rediss:` is verified. Login and database come from the URL, which is
 * never shown. Rejects with `Unavailable`, also where Redis answers but cannot be written to.
 */
export async function redisBackend(url: URL, scope: string, tools: Tools, lost: (cause: unknown) => void, attempt: 'first' | 'again'): Promise<Backend> {
  const { clock } = tools
  const client = new Redis(optionsOf(url))
  let refusal: unknown
  // Without a listener ioredis prints errors, with the address, to the console. A refused login is told only here.
  client.on('error', (error) => (refusal ??= refusalIn(error) && error))
  client.on('close', () => lost(new Unavailable('redis has closed the connection')))
  const call = bounded(client, tools)
  const name = (kind: string, key: string): string => `attache:${scope}${kind}:${key}`
  const fences = name('fence', '')
  const realTtl = (ttlMs: number): string => String(Math.ceil(Math.min(Math.max(1, clock.realMs(ttlMs)), LONGEST_TTL_MS)))

  try {
    await within(CONNECT_MS[attempt], client.connect(), tools)
    await call('SELECT', databaseOf(url))
    // A write, because a replica, a full Redis or a reader's login answer everything else.
    await call('SET', name('probe', ''), '1', 'PX', '1000')
  } catch (cause) {
    client.disconnect()
    throw explained(refusal ?? cause)
  }

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
    async close() {
      client.disconnect()
    }
  }
}

function optionsOf(url: URL) {
  return {
    host: url.hostname.replaceAll(/^\[|\]$/g, ''),
    port: url.port === '' ? 6379 : Number(url.port),
    ...(url.username === '' ? {} : { username: decodeURIComponent(url.username) }),
    ...(url.password === '' ? {} : { password: decodeURIComponent(url.password) }),
    // An empty set of options: verification against the usual roots and NODE_EXTRA_CA_CERTS, with the host's name.
    ...(url.protocol === 'rediss:' ? { tls: {} } : {}),
    protocol: 2 as const,
    lazyConnect: true,
    enableOfflineQueue: false,
    enableReadyCheck: false,
    autoResendUnfulfilledCommands: false,
    autoResubscribe: false,
    disableClientInfo: true,
    maxRetriesPerRequest: 0,
    retryStrategy: () => null
  }
}

function databaseOf(url: URL): string {
  return url.pathname.replace(/^\//, '') || '0'
}

type Call = (command: string, ...args: (string | Buffer)[]) => Promise<unknown>

function bounded(client: Redis, tools: Tools): Call {
  return async function call(command, ...args) {
    try {
      return await within(CALL_MS, client.callBuffer(command, ...args), tools)
    } catch (cause) {
      throw explained(cause)
    }
  }
}

/** Rejects where `work` takes longer than `ms` of real time; what becomes of it then is nobody's concern. */
function within<T>(ms: number, work: Promise<T>, { clock }: Tools): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = clock.after(ms / clock.realMs(1), () => {
      // When our own event loop was blocked the answer may be waiting in the socket: it is read before this runs.
      setImmediate(() => reject(new Unavailable('redis gives no answer in time')))
    })
    work.then(resolve, reject).finally(() => timer.cancel())
  })
}

// The first word of an error reply, https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors
const REFUSALS: Readonly<Record<string, string>> = {
  NOAUTH: 'redis wants a login',
  WRONGPASS: 'redis refuses the login',
  NOPERM: 'redis refuses the login what attache needs',
  READONLY: 'redis is a read-only replica',
  OOM: 'redis is out of memory',
  MISCONF: 'redis cannot write to its disk',
  LOADING: 'redis is still loading',
  NOREPLICAS: 'redis has too few replicas to write'
}

function explained(cause: unknown): Unavailable {
  if (cause instanceof Unavailable) return cause
  const refusal = refusalIn(cause)
  if (refusal !== undefined) return new Unavailable(refusal, cause)
  return new Unavailable(cause instanceof Error && cause.name === 'ReplyError' ? 'redis refuses a command' : 'redis cannot be reached', cause)
}

function refusalIn(error: unknown): string | undefined {
  return error instanceof Error ? REFUSALS[error.message.split(' ', 1)[0] ?? ''] : undefined
}

function garbage(): Unavailable {
  return new Unavailable('redis gives an answer that makes no sense')
}

function pair(reply: unknown): [unknown, unknown] {
  if (!Array.isArray(reply) || reply.length !== 2) throw garbage()
  return [reply[0], reply[1]]
}

function count(reply: unknown): number {
  const number = typeof reply === 'number' ? reply : Buffer.isBuffer(reply) ? Number(reply.toString()) : NaN
  if (!Number.isFinite(number)) throw garbage()
  return number
}

/** A prefix as a pattern that means only itself. */
function literally(text: string): string {
  return text.replaceAll(/[\\*?[\]]/g, '\\$&')
}
