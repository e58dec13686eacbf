import type { Event } from '../../src/exchange/events.ts'
import type { Request, Response } from '../../src/exchange/message.ts'
import { field } from '../../src/http/fields.ts'
import { httpDate } from '../../src/http/http-date.ts'
import { cache, type Cache, type CacheOptions } from '../../src/policies/cache/cache.ts'
import { memoryStore } from '../../src/state/memory.ts'
import type { SecondTier } from '../../src/state/second-tier.ts'
import { testClock, type TestClock } from './clock.ts'
import { answerOf, reports, requestTo } from './policy-call.ts'

/** One answer of the origin: status 200 and a body of its own where nothing else is said. */
export type Scripted = { status?: number; fields?: readonly string[]; body?: string; response?: Response }

/** A cache in front of an origin that answers as told, and remembers what reached it. */
export type Cached = {
  readonly cache: Cache
  readonly clock: TestClock
  readonly events: readonly Event[]
  /** Requests that reached the origin. */
  readonly calls: readonly Request[]
  /** What the origin answers from now on: one for all, or one after the other (the last one repeats). */
  origin(...answers: (Scripted | Error | ((request: Request) => Scripted | Promise<Scripted>))[]): void
  get(target: string, fields?: readonly string[], more?: Partial<Request>): Promise<Response>
  send(method: string, target: string, fields?: readonly string[], more?: Partial<Request>): Promise<Response>
}

export const CACHE_DEFAULTS: CacheOptions = {
  mode: 'private',
  heuristic: false,
  maxBytes: 64 * 1024 * 1024,
  maxEntryBytes: 1024 * 1024,
  negative: {},
  staleWhileRevalidate: 0,
  secondTier: false,
  vary: ['Accept', 'Accept-Language'],
  rules: []
}

export type CachedSetup = Partial<CacheOptions> & {
  baseUrl?: string
  identityOf?: (credential: string | undefined, target: string) => string
  settleMs?: number
  /** What replicas share, and what they must have in common to do so. */
  tier?: SecondTier
  sealKey?: Buffer
  scope?: string
}

export function cached(setup: CachedSetup = {}): Cached {
  const {
    baseUrl = 'http://origin.test/api/',
    identityOf = (credential) => credential ?? '',
    settleMs = 300_000,
    tier,
    sealKey = Buffer.alloc(32),
    scope = '',
    ...options
  } = setup
  const clock = testClock()
  const { events, report } = reports()
  const calls: Request[] = []
  let answers: Parameters<Cached['origin']> = [{}]
  const room = cache(
    { ...CACHE_DEFAULTS, ...options },
    {
      clock,
      random: () => 0.5,
      report,
      upstream: 'acme',
      store: memoryStore({ clock }),
      secondTier: tier,
      sealKey,
      scope,
      settleMs,
      baseUrl,
      identityOf
    }
  )

  async function next(request: Request): Promise<Response> {
    calls.push(request)
    request.trace.attempts += 1
    request.trace.sent = true
    const answer = answers.length > 1 ? answers.shift() : answers[0]
    if (answer instanceof Error) throw answer
    const { status = 200, fields = [], body = `answer ${calls.length}`, response } = typeof answer === 'function' ? await answer(request) : (answer ?? {})
    const date = field(fields, 'date') === undefined ? ['Date', httpDate(clock.wallNow())] : []
    return response ?? answerOf(status, status === 304 || status === 204 || request.method === 'HEAD' ? '' : body, [...date, ...fields])
  }

  function send(method: string, target: string, fields: readonly string[] = [], more: Partial<Request> = {}): Promise<Response> {
    return room.policy(requestTo(method, target, { fields, ...more }), next)
  }

  return {
    cache: room,
    clock,
    events,
    calls,
    origin: (...told) => void (answers = told),
    get: (target, fields, more) => send('GET', target, fields, more),
    send
  }
}

/** The text of an answer, read to its end. */
export async function textOf(response: Response): Promise<string> {
  if (response.body.kind === 'none') return ''
  if (response.body.kind === 'bytes') return response.body.bytes.toString()
  const chunks: Buffer[] = []
  for await (const chunk of response.body.stream) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString()
}
