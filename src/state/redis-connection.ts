import { setImmediate } from 'node:timers'
import { Redis } from 'ioredis'
import type { Tools } from '../exchange/tools.ts'
import { Unavailable } from './backend.ts'

// Real milliseconds. A caller may lose 50 to a Redis that has just stopped; some of them go to our own event loop.
const CALL_MS = 40
const CONNECT_MS = { first: 500, again: 1_000 }

/** One connection to a Redis; commands reject with `Unavailable`. */
export type RedisConnection = {
  /** Sends one command; rejects where the answer takes longer than 40 ms of real time. */
  call(command: string, ...args: (string | Buffer)[]): Promise<unknown>
  /** The same with a limit of its own, in real milliseconds, for what nobody waits for. */
  callWithin(limitMs: number, command: string, ...args: (string | Buffer)[]): Promise<unknown>
  close(): Promise<void>
}

/**
 * Connects to a Redis and proves that it can be written to, with a short-lived record under `probe`; tells `lost` when the
 * connection ends later. Rejects with `Unavailable` within half a second at the `first` attempt, else a second.
 *
 * Tamed here: ioredis queues while offline, resends what was not answered, reconnects by itself and logs to the console.
 * None of that is wanted where a caller is waiting, so a connection is used once, each command waits 40 ms at most, and
 * whoever uses it decides when to try anew. TLS of `rediss:` is verified. Login and database come from the URL, which is
 * never shown.
 */
export async function connectRedis(
  url: URL,
  probe: string,
  tools: Tools,
  lost: (cause: unknown) => void,
  attempt: 'first' | 'again'
): Promise<RedisConnection> {
  const client = new Redis(optionsOf(url))
  let refusal: unknown
  // Without a listener ioredis prints errors, with the address, to the console. A refused login is told only here.
  client.on('error', (error) => (refusal ??= refusalIn(error) && error))
  client.on('close', () => lost(new Unavailable('redis has closed the connection')))

  async function callWithin(limitMs: number, command: string, ...args: (string | Buffer)[]): Promise<unknown> {
    try {
      return await within(limitMs, client.callBuffer(command, ...args), tools)
    } catch (cause) {
      throw explained(cause)
    }
  }
  const call: RedisConnection['call'] = (command, ...args) => callWithin(CALL_MS, command, ...args)

  try {
    await within(CONNECT_MS[attempt], client.connect(), tools)
    await call('SELECT', databaseOf(url))
    // A write, because a replica, a full Redis or a reader's login answer everything else.
    await call('SET', probe, '1', 'PX', '1000')
  } catch (cause) {
    client.disconnect()
    throw explained(refusal ?? cause)
  }
  return {
    call,
    callWithin,
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

/** What Redis says is no answer to what was asked. */
export function garbage(): Unavailable {
  return new Unavailable('redis gives an answer that makes no sense')
}

export function pair(reply: unknown): [unknown, unknown] {
  if (!Array.isArray(reply) || reply.length !== 2) throw garbage()
  return [reply[0], reply[1]]
}

export function count(reply: unknown): number {
  const number = typeof reply === 'number' ? reply : Buffer.isBuffer(reply) ? Number(reply.toString()) : NaN
  if (!Number.isFinite(number)) throw garbage()
  return number
}
