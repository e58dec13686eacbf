import type { Signal } from '../exchange/signal.ts'
import { createHash } from 'node:crypto'
import type { Policy, Send } from '../exchange/chain.ts'
import { collect } from '../exchange/collect.ts'
import { payloadFingerprint } from '../exchange/idempotency-key.ts'
import { discard, pathOf, type Request, type Response } from '../exchange/message.ts'
import { number, route, section, textLike, type Decoded } from '../exchange/options.ts'
import { isProblem, Problem } from '../exchange/problem.ts'
import type { UpstreamTools } from '../exchange/tools.ts'
import { abandonable } from '../exchange/waiting.ts'
import { requestControl } from '../http/cache-control.ts'
import { forwarded } from '../http/cache-status.ts'
import { unconditional } from '../http/conditional.ts'
import { field, fieldList, hasField, withField } from '../http/fields.ts'
import { firstRoute } from '../http/route.ts'
import type { Store } from '../state/store.ts'
import { EXPIRES, validityReader, type ReadValidity } from './leases/expiry.ts'
import { answerFrom, dueAt, isGood, openLease, sealLease, type Lease } from './leases/lease.ts'

export const leaseRule = section('An operation whose answer is a temporary secret, such as a connection string', {
  match: route('METHOD /template; GET without a method'),
  share: number('Share of its validity before another one is asked for', { minimum: 0.5, maximum: 1 }, 0.9),
  expires: textLike('Where the end of its validity stands: field:PATH of a JSON member, sas (se= of a shared access signature), or a fixed duration', EXPIRES)
})
export type LeaseRule = Decoded<typeof leaseRule>

export type LeaseTools = UpstreamTools & {
  readonly store: Store
  readonly sealKey: Buffer
  readonly baseUrl: string
  readonly identityOf: (credential: string | undefined, target: string) => string
}

/** How an ask for a lease ended, for all who waited for it. Never a rejection: it may be that nobody waits any more. */
type Landing =
  | { readonly kind: 'lent'; readonly lease: Lease; readonly isOurs: boolean }
  /** No lease, but a whole answer everybody can have. */
  | { readonly kind: 'answer'; readonly response: Response }
  /** Too long to be shared: for the one who asked first. */
  | { readonly kind: 'unshared'; readonly response: Response }
  | { readonly kind: 'failed'; readonly error: unknown }

const LONGEST_BYTES = 64 * 1024
const LEASABLE = [200, 201, 203]
// The app's word that a secret was rejected, and the share having passed, count once in this time, over all replicas.
const RENEWAL_EVERY_MS = 60_000
// In real milliseconds: how long a caller waits for another lease while the one held is still good.
const PATIENCE_MS = 2_000
// In real milliseconds: how long replicas wait for the one that asks, and how often they look.
const TURN_MS = 15_000
const POLL_MS = 100

/**
 * Keeps secrets on loan (temporary connection strings) as long as agreed: asked for once, then answered from the state,
 * sealed, for `share` of their validity, over restarts and replicas. They are the same whatever the caller accepts, so
 * neither negotiation nor conditions are passed on; `fields` names those by which the provider's answers do differ.
 *
 * `Cache-Control: no-cache` says that the secret was rejected and brings another one, once a minute at most. While the one
 * held is still good, a provider that fails or is slow costs the caller nothing: it is answered with that. Callers at the
 * same time share one ask, which belongs to nobody and lasts `totalMs` at most.
 */
export function leases(options: { rules: readonly LeaseRule[]; fields: readonly string[]; totalMs: number }, tools: LeaseTools): Policy {
  const { clock, store, sealKey, report, upstream } = tools
  const { rules } = options
  const ruleFor = leaseSelector(rules)
  const readers = new Map<LeaseRule, ReadValidity>(rules.map((rule) => [rule, validityReader(rule.expires)]))
  const selecting = options.fields.map((name) => name.toLowerCase()).filter((name) => !name.startsWith('accept'))
  const flights = new Map<string, Promise<Landing>>()
  const complainedOf = new Set<LeaseRule>()
  const inClockTime = (realMs: number): number => realMs / clock.realMs(1)

  return function leases(request, next) {
    const rule = rules.length === 0 ? undefined : ruleFor(request.method, pathOf(request.target))
    return rule === undefined || request.body.kind === 'stream' ? next(request) : lend(request, next, rule)
  }

  async function lend(request: Request, next: Send, rule: LeaseRule): Promise<Response> {
    const key = keyOf(request)
    const held = await heldUnder(key)
    const { isNoCache, isOnlyIfCached } = requestControl(request.fields)
    if (held === undefined) return isOnlyIfCached ? next(request) : borrow(request, next, rule, key)
    const isDue = dueAt(held, rule.share) <= clock.now()
    return isOnlyIfCached || !(isNoCache || isDue) ? again(held) : renew(request, next, rule, key, held, isNoCache)
  }

  /** Nothing is held: whatever the ask brings is the answer. */
  async function borrow(request: Request, next: Send, rule: LeaseRule, key: string): Promise<Response> {
    const joined = flights.get(key)
    const landing = await landed(joined ?? open(request, next, rule, key, () => inTurn(key)), request.signal, joined === undefined)
    switch (landing.kind) {
      case 'lent':
        return fresh(landing, joined !== undefined, 'uri-miss')
      case 'answer':
        if (joined !== undefined) report({ kind: 'call-avoided', upstream, reason: 'collapsed' })
        return joined === undefined ? landing.response : { ...landing.response, source: 'collapsed' }
      case 'unshared':
        return joined === undefined ? landing.response : next(request)
      case 'failed':
        throw landing.error
    }
  }

  /** One is held and still good: it serves where no other can be had now. */
  async function renew(request: Request, next: Send, rule: LeaseRule, key: string, held: Lease, isRejected: boolean): Promise<Response> {
    const lock = flights.has(key) ? undefined : await store.lock(`${key}/renewal`, RENEWAL_EVERY_MS)
    const joined = flights.get(key)
    // The lock is never given back: it is the minute itself, for every replica and over restarts.
    const flight = joined ?? (lock === undefined ? undefined : open(request, next, rule, key, async () => undefined))
    // somebody may have brought another one while we looked
    if (flight === undefined) return again((await heldUnder(key)) ?? held)
    const landing = await inTime(landed(flight, request.signal, joined === undefined), isRejected ? Infinity : inClockTime(PATIENCE_MS))
    if (landing === undefined && joined === undefined) leave(flight)
    if (landing?.kind === 'lent') return fresh(landing, joined !== undefined, isRejected ? 'request' : 'stale')
    const isAnswer = (landing?.kind === 'answer' || landing?.kind === 'unshared') && joined === undefined
    if (isAnswer && landing.response.status < 300) return landing.response
    if (landing?.kind === 'unshared' && joined === undefined) discard(landing.response.body)
    return again(held)
  }

  function open(request: Request, next: Send, rule: LeaseRule, key: string, look: () => Promise<Turn | undefined>): Promise<Landing> {
    const flight = (async (): Promise<Landing> => {
      let turn: Turn | undefined
      try {
        turn = await look()
        return turn?.found === undefined ? await ask(request, next, rule, key) : { kind: 'lent', lease: turn.found, isOurs: false }
      } catch (error) {
        return { kind: 'failed', error: isProblem(error) ? error : new Problem('upstream-protocol', { detail: 'the answer broke off', cause: error }) }
      } finally {
        flights.delete(key)
        await turn?.release()
      }
    })()
    flights.set(key, flight)
    return flight
  }

  async function ask(request: Request, next: Send, rule: LeaseRule, key: string): Promise<Landing> {
    const ending = new AbortController()
    const timer = clock.after(options.totalMs, () => ending.abort(new Problem('upstream-timeout', { detail: 'no answer within timeout.total' })))
    try {
      const answer = await next({ ...request, fields: asking(request), signal: ending.signal, deadlineAt: clock.now() + options.totalMs })
      const response = { ...answer, body: await collect(answer.body, LONGEST_BYTES) }
      if (response.body.kind === 'stream') return { kind: 'unshared', response }
      if (!LEASABLE.includes(response.status)) return { kind: 'answer', response }
      const bytes = response.body.kind === 'bytes' ? response.body.bytes : Buffer.alloc(0)
      const validMs = isPlain(response) ? readers.get(rule)?.(bytes.toString(), response.fields, clock.wallNow()) : undefined
      if (validMs === undefined) {
        complain(rule)
        return { kind: 'answer', response }
      }
      const lease: Lease = { status: response.status, fields: response.fields, bytes, obtainedAt: clock.now(), validMs }
      await store.put(key, sealLease(lease, sealKey, key), { ttlMs: validMs })
      return { kind: 'lent', lease, isOurs: true }
    } finally {
      timer.cancel()
    }
  }

  /** Waits until no other replica asks: what it brought, or the right to ask. Who is never done is not waited for. */
  async function inTurn(key: string): Promise<Turn> {
    const giveUpAt = clock.now() + inClockTime(TURN_MS)
    for (;;) {
      const lock = await store.lock(`${key}/turn`, inClockTime(TURN_MS))
      const found = await heldUnder(key)
      if (found !== undefined || lock !== undefined || clock.now() >= giveUpAt) return { found, release: async () => lock?.release() }
      await clock.sleep(inClockTime(POLL_MS * (1 + tools.random())))
    }
  }

  async function heldUnder(key: string): Promise<Lease | undefined> {
    const lease = openLease(await store.get(key), sealKey, key)
    return lease !== undefined && isGood(lease, clock.now()) ? lease : undefined
  }

  function again(held: Lease): Response {
    report({ kind: 'call-avoided', upstream, reason: 'cache' })
    return { ...answerFrom(held, clock.now()), source: 'cache', cacheStatus: 'hit; detail=lease' }
  }

  function fresh({ lease, isOurs }: Landing & { kind: 'lent' }, isJoined: boolean, why: 'uri-miss' | 'stale' | 'request'): Response {
    if (!isOurs) return again(lease)
    if (isJoined) report({ kind: 'call-avoided', upstream, reason: 'collapsed' })
    const cacheStatus = forwarded(why, { status: lease.status, isStored: true, isCollapsed: isJoined, detail: 'lease' })
    return { ...answerFrom(lease, clock.now()), source: isJoined ? 'collapsed' : 'upstream', cacheStatus }
  }

  async function inTime<T>(work: Promise<T>, patienceMs: number): Promise<T | undefined> {
    if (patienceMs === Infinity) return work
    const impatient = Promise.withResolvers<undefined>()
    const timer = clock.after(patienceMs, () => impatient.resolve(undefined))
    try {
      return await Promise.race([work, impatient.promise])
    } finally {
      timer.cancel()
    }
  }

  /** Once is enough: every answer of the operation will be like it. */
  function complain(rule: LeaseRule): void {
    if (complainedOf.has(rule)) return
    complainedOf.add(rule)
    report({ kind: 'warning', about: upstream, message: `answers to ${rule.match} are not kept as leases: no end that lies ahead is found by ${rule.expires}` })
  }

  function keyOf(request: Request): string {
    const { fields, credential, target } = request
    const own = ['authorization', 'cookie', ...selecting].map((name) => fieldList(fields, name) ?? '')
    const parts = [tools.baseUrl, tools.identityOf(credential, target), payloadFingerprint(request), ...own]
    return `lease/${upstream}/${createHash('sha256').update(JSON.stringify(parts)).digest('hex')}`
  }
}

/** Which rule is for an operation, the first that matches. */
export function leaseSelector(rules: readonly LeaseRule[]): (method: string, path: string) => LeaseRule | undefined {
  const first = firstRoute(rules.map(({ match }) => (match.startsWith('/') ? `GET ${match}` : match)))
  return (method, path) => rules[first(method, path)]
}

type Turn = { readonly found: Lease | undefined; release(): Promise<void> }

/** Waits for a flight; who opened it and leaves early must leave no answer behind that only they could have read. */
async function landed(flight: Promise<Landing>, signal: Signal, isFirst: boolean): Promise<Landing> {
  try {
    return await abandonable(flight, signal)
  } catch (reason) {
    if (isFirst) leave(flight)
    throw reason
  }
}

function leave(flight: Promise<Landing>): void {
  void flight.then((landing) => landing.kind === 'unshared' && discard(landing.response.body))
}

/** What the provider is asked: for all callers, so without what was meant for one, and past the cache, which may hold the old one. */
function asking(request: Request): Request['fields'] {
  return withField(withField(unconditional(request.fields), 'Accept-Encoding', 'identity'), 'Cache-Control', 'no-store')
}

function isPlain({ fields }: Response): boolean {
  return !hasField(fields, 'content-encoding') || field(fields, 'content-encoding') === 'identity'
}
