import { field, type Answer, type Bench, type Call, type Rule } from '../call.ts'
import { seconds } from './tokens.ts'

export type CachingRuleOptions = {
  /** Known-missing data asked for again. */
  readonly missing: string
  /** Data asked for again although the held answer was fresh, or without its validator, or twice at once. */
  readonly redundant: string
  /** For how long an answer that says "no such thing" holds, by status. */
  readonly missingMs: Readonly<Record<number, number>>
}

type Held = { since: number; connection: number; path: string; client: string; missingUntil: number; status: number; freshUntil: number; validator: boolean }

const MOST_HELD = 10_000
const LOCATION_MS = 600_000
const MOST_WRITES = 500

/** What the caller already knows, it does not ask again: missing, fresh, unchanged, and being fetched right now. */
export function caching(options: CachingRuleOptions, bench: Bench): Rule {
  const held = new Map<string, Held>()
  const underWay = new Map<string, Call[]>()
  const promised = new Map<string, number>()
  let writes: { client: string; path: string; at: number }[] = []

  function keyOf(call: Call): string {
    return [
      call.client,
      call.token?.subject ?? '',
      call.target,
      ...['s4-tenantid', 'accept', 'accept-language'].map((name) => field(call.fields, name) ?? '')
    ].join('\n')
  }
  function isRead(call: Call): boolean {
    const wishes = field(call.fields, 'cache-control') ?? ''
    return call.method === 'GET' && field(call.fields, 'range') === undefined && !/no-store|no-cache|max-age=0/.test(wishes)
  }
  /** RFC 9111 §4.4, and a little kinder: a write, however it ends, makes everything around its path worth asking again. */
  function wrote(client: string, path: string): void {
    writes = [...writes, { client, path, at: bench.clock.now() }].slice(-MOST_WRITES)
    for (const [key, entry] of held) if (entry.client === client && isAround(path, entry.path)) held.delete(key)
  }
  /** What was read while it was being written is not worth keeping. */
  function isOvertaken(call: Call): boolean {
    return writes.some((write) => write.client === call.client && isAround(write.path, call.path) && write.at > call.at - bench.slackMs)
  }

  return {
    arrived(call) {
      if (!isRead(call)) return
      const key = keyOf(call)
      const what = `GET ${call.operation?.template ?? 'unknown'}`
      // what was asked before a write must not be shared with who asks after it
      const together = (underWay.get(key) ?? []).filter((other) => !isOvertaken(other))
      underWay.set(key, [...(underWay.get(key) ?? []), call])
      if (together.length > 0 && call.operation?.cacheable === true)
        bench.note(options.redundant, 'S2', call.client, `${what} asked ${together.length + 1} times at once`)
      const entry = held.get(key)
      if (entry === undefined) return
      // on another connection it may have been sent before our answer was read
      if (call.connection !== entry.connection && call.at < entry.since + bench.slackMs) return
      if (call.at < entry.missingUntil - bench.slackMs) {
        bench.note(options.missing, 'S1', call.client, `${what} asked again ${seconds(entry.missingUntil - call.at)} before its ${entry.status} was due again`)
      } else if (call.at < entry.freshUntil - bench.slackMs) {
        bench.note(options.redundant, 'S2', call.client, `${what} asked again while fresh for ${seconds(entry.freshUntil - call.at)} more`)
      } else if (entry.validator && field(call.fields, 'if-none-match') === undefined && field(call.fields, 'if-modified-since') === undefined) {
        bench.note(options.redundant, 'S2', call.client, `${what} fetched again without its validator`)
      }
    },
    answered(call, answer) {
      const now = bench.clock.now()
      if (answer.status === 401) for (const [key, entry] of held) if (entry.client === call.client) held.delete(key)
      if (isWrite(call)) {
        wrote(call.client, call.path)
        const location = answer.status < 400 ? field(answer.fields, 'location') : undefined
        if (location === undefined) return
        wrote(call.client, pathBehindApi(location))
        promised.set(`${call.client}\n${pathBehindApi(location)}`, now)
        const oldest = promised.keys().next().value
        if (promised.size > MOST_HELD && oldest !== undefined) promised.delete(oldest)
        return
      }
      if (!isRead(call)) return
      remember(call, answer, now)
    },
    dropped(call) {
      if (isWrite(call)) wrote(call.client, call.path)
      else held.delete(keyOf(call))
    },
    ended(call) {
      if (!isRead(call)) return
      const left = (underWay.get(keyOf(call)) ?? []).filter((other) => other !== call)
      if (left.length === 0) underWay.delete(keyOf(call))
      else underWay.set(keyOf(call), left)
    },
    forget() {
      held.clear()
      promised.clear()
      writes = []
    }
  }

  function remember(call: Call, answer: Answer, now: number): void {
    const key = keyOf(call)
    const known = held.get(key)
    const freshMs = lifetimeMs(answer)
    if (answer.status === 304 && known !== undefined && !isOvertaken(call))
      return void held.set(key, { ...known, since: now, connection: call.connection, freshUntil: now + freshMs })
    const missingMs = options.missingMs[answer.status]
    const expected = now - (promised.get(`${call.client}\n${call.path}`) ?? -Infinity) < LOCATION_MS
    held.delete(key)
    if (isOvertaken(call)) return
    if (answer.status === 200 && /no-store/.test(field(answer.fields, 'cache-control') ?? '')) return
    if (answer.status !== 200 && (missingMs === undefined || expected)) return
    const validator = answer.status === 200 && (field(answer.fields, 'etag') ?? field(answer.fields, 'last-modified')) !== undefined
    held.set(key, {
      since: now,
      connection: call.connection,
      path: call.path,
      client: call.client,
      status: answer.status,
      validator,
      freshUntil: answer.status === 200 ? now + freshMs : 0,
      missingUntil: answer.status === 200 ? 0 : now + (missingMs ?? 0)
    })
    const oldest = held.keys().next().value
    if (held.size > MOST_HELD && oldest !== undefined) held.delete(oldest)
  }
}

function isWrite(call: Call): boolean {
  return call.method !== 'GET' && call.method !== 'HEAD'
}

/** The same path, or one above or below it. */
function isAround(path: string, other: string): boolean {
  return path === other || path.startsWith(`${other}/`) || other.startsWith(`${path}/`)
}

/** Explicit freshness of a private cache: `max-age`; `no-cache` and `no-store` give none. */
function lifetimeMs(answer: Answer): number {
  const control = field(answer.fields, 'cache-control') ?? ''
  if (/no-cache|no-store/.test(control)) return 0
  return Number(/max-age=(\d+)/.exec(control)?.[1] ?? 0) * 1000
}

/** The path of a `Location` as operations know it: behind `/PROVIDER/api`. */
export function pathBehindApi(location: string): string {
  const path = new URL(location, 'http://sandbox.invalid/').pathname
  return path.replace(/^\/[^/]+\/api(?=\/)/, '')
}
