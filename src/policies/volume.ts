import { hash } from 'node:crypto'
import { setImmediate } from 'node:timers'
import type { Policy } from '../exchange/chain.ts'
import type { Timer } from '../exchange/clock.ts'
import { Line } from '../exchange/line.ts'
import { pathOf, type Request, type Response } from '../exchange/message.ts'
import { choice, integer, list, number, optional, rate, section, textLike, type Decoded } from '../exchange/options.ts'
import { Problem, isProblem } from '../exchange/problem.ts'
import type { UpstreamTools } from '../exchange/tools.ts'
import { field } from '../http/fields.ts'
import { unescapeUnreserved } from '../http/route.ts'
import type { Store } from '../state/store.ts'
import { Quota } from './volume/quota.ts'
import { usageReport } from './volume/usage-report.ts'

export const volumeOptions = section(
  'The agreed volume: limits in every window, and concurrency',
  {
    limits: list('At most this many attempts in any window', rate('COUNT/WINDOW'), []),
    key: optional(textLike('One bucket per value: path[N] behind the prefix, or header:NAME', '^(?:path\\[\\d+\\]|header:.+)$')),
    concurrency: integer('Attempts under way at once; more callers wait', { minimum: 1 }, 128),
    onExceed: choice('Wait for room, or answer volume-exhausted at once', ['wait', 'reject'], 'wait'),
    queue: integer('Callers that may wait; more get volume-exhausted', { minimum: 0 }, 1000),
    declared: optional(
      section('The volume declared to the provider', {
        perHour: optional(number('Calls', { minimum: 0 })),
        perDay: optional(number('Calls', { minimum: 0 })),
        perMonth: optional(number('Calls', { minimum: 0 })),
        averageKb: optional(number('Average request size', { minimum: 0 }))
      })
    )
  },
  {}
)
export type VolumeOptions = Decoded<typeof volumeOptions>

/** One volume key: its limits and those who wait for them. */
type Account = { readonly quotas: readonly Quota[]; readonly line: Line<void>; wake: Timer | undefined; isRefilling: boolean }

// The store keeps the counts: a key that is forgotten here is read again when it comes back.
const MOST_KEYS = 20_000
// Where all keys are in use, further ones share one account: never more than agreed, and bounded.
const OVERFLOW_KEY = '\0overflow'
const EXAMINED_AT_ONCE = 32
const LONGEST_KEY = 64
// Real milliseconds by which one call may reach the provider later after it was sent than another; allowed for in any case,
// and for calls whose answer shows that it may have taken longer.
const TRAVEL_MS = 100
const LONGEST_TRAVEL_MS = 1000
const LEAST_RETRY_AFTER_MS = 1000

/**
 * Keeps attempts within the agreed volume: never more than COUNT in any window, wherever it begins, for each key by
 * itself; over restarts and replicas where the store is shared. At most `concurrency` attempts are under way at once; a
 * streamed answer is under way until its body has ended.
 *
 * Callers wait in line, `queue` of them at most, where the wait fits their deadline; others get `volume-exhausted` with
 * the time at which there will be room.
 */
export function volume(options: VolumeOptions, tools: UpstreamTools & { store: Store }): Policy {
  const { clock, report, upstream } = tools
  const keyOf = volumeKey(options.key)
  const accounts = new Map<string, Account>()
  /** Accounts whose callers wait for a slot, in the order in which they get the next one. */
  const crowded = new Set<Account>()
  const usage = usageReport(options.limits, tools)
  let slots = options.concurrency
  let waiting = 0
  let isReleasing = false

  return async function volume(request, next) {
    const account = accountOf(keyOf(request))
    const objection = request.objection?.()
    if (objection !== undefined) throw objection
    if (account.line.length === 0 && slots > 0 && takes(account)) slots -= 1
    else await admitted(account, request)
    const takenAt = clock.now()
    let response: Response
    try {
      response = await next(request)
    } catch (error) {
      release()
      throw error
    } finally {
      const arrivedBy = Math.min(clock.now(), takenAt + LONGEST_TRAVEL_MS / clock.realMs(1))
      for (const quota of account.quotas) quota.arrived(takenAt, arrivedBy)
    }
    if (response.body.kind === 'stream' && !response.body.stream.closed) response.body.stream.once('close', release)
    else release()
    return response
  }

  function accountOf(key: string): Account {
    const known = accounts.get(key)
    if (known !== undefined) return known
    if (accounts.size >= MOST_KEYS && key !== OVERFLOW_KEY && !makeRoom()) return accountOf(OVERFLOW_KEY)
    const quotas = options.limits.map((limit) => {
      const guardMs = Math.min(limit.windowMs / 10, TRAVEL_MS / clock.realMs(1))
      return new Quota(`volume:${upstream}:${key}:${limit.label}`, limit, guardMs, tools)
    })
    const account: Account = { quotas, line: new Line(), wake: undefined, isRefilling: false }
    accounts.set(key, account)
    return account
  }

  /** Forgets an account of which nothing would be lost; looks at a few only, in turn. */
  function makeRoom(): boolean {
    let examined = 0
    for (const [key, account] of accounts) {
      accounts.delete(key)
      if (account.line.length === 0 && !account.isRefilling) {
        for (const quota of account.quotas) quota.close()
        return true
      }
      accounts.set(key, account)
      examined += 1
      if (examined >= EXAMINED_AT_ONCE) return false
    }
    return false
  }

  /** Takes a unit of every limit, or none of any. */
  function takes({ quotas }: Account): boolean {
    if (quotas.length === 0) return true
    const now = clock.now()
    for (const quota of quotas) if (!quota.has(now)) return false
    for (const quota of quotas) quota.take(now)
    usage.taken(quotas, now)
    return true
  }

  async function admitted(account: Account, request: Request): Promise<void> {
    const now = clock.now()
    const freeAt = roomAt(account, now, account.line.length + 1)
    const mustWait = freeAt > now || slots === 0
    if (!fits(freeAt, now, request) || (mustWait && waiting >= options.queue)) throw exhausted(freeAt - now)
    const turn = account.line.join(request)
    // a moment for the store is no wait
    if (mustWait) changeWaiting(1)
    serve(account)
    try {
      await turn
    } catch (reason) {
      // out of time while waiting here: the provider was not asked, so it was not slow either
      throw isProblem(reason, 'upstream-timeout') ? exhausted(roomAt(account, clock.now(), 1) - clock.now()) : reason
    } finally {
      if (mustWait) changeWaiting(-1)
      request.trace.waitMs += clock.now() - now
    }
  }

  /** When there will be room for so many more calls, as far as limits go. */
  function roomAt({ quotas }: Account, now: number, units: number): number {
    let at = now
    for (const quota of quotas) at = Math.max(at, quota.freeAt(now, units))
    return at
  }

  function fits(freeAt: number, now: number, request: Request): boolean {
    return freeAt <= now || (options.onExceed === 'wait' && freeAt < request.deadlineAt)
  }

  /** Lets go whoever may, and arranges to be called again where somebody has to wait. */
  function serve(account: Account): void {
    const { line } = account
    while (line.length > 0 && slots > 0) {
      // while it waited the provider may have said wait, or failed once too often
      const objection = line.first?.objection?.()
      if (objection !== undefined) line.refuse(objection)
      else if (takes(account)) {
        slots -= 1
        line.next()
      } else break
    }
    crowded.delete(account)
    if (line.length === 0) return
    if (slots === 0) {
      // to the end: the next slot is another key's
      crowded.add(account)
      return
    }
    if (account.isRefilling) return
    const now = clock.now()
    const freeAt = roomAt(account, now, 1)
    if (freeAt > now) wakeAt(account, freeAt)
    else void refill(account, now)
  }

  function wakeAt(account: Account, at: number): void {
    account.wake?.cancel()
    account.wake = clock.after(at - clock.now(), () => serve(account))
  }

  /** Asks the store for more, and sends away those whom its answer leaves no time to wait. */
  async function refill(account: Account, now: number): Promise<void> {
    account.isRefilling = true
    await Promise.all(account.quotas.filter((quota) => !quota.has(now)).map((quota) => quota.refill(account.line.length)))
    account.isRefilling = false
    serve(account)
    const after = clock.now()
    let position = 0
    account.line.dismiss((request) => {
      position += 1
      const freeAt = roomAt(account, after, position)
      return freeAt <= after || (fits(freeAt, after, request) && position <= options.queue) ? undefined : exhausted(freeAt - after)
    })
  }

  function release(): void {
    slots += 1
    if (crowded.size === 0 || isReleasing) return
    isReleasing = true
    // not before gate and breaker have heard of the answer that made room: they may object to those who wait for it
    setImmediate(serveCrowded)
  }

  function serveCrowded(): void {
    isReleasing = false
    for (const account of crowded) {
      if (slots === 0) return
      serve(account)
    }
  }

  function changeWaiting(by: 1 | -1): void {
    waiting += by
    report({ kind: 'queue', upstream, length: waiting })
  }

  function exhausted(retryAfterMs: number): Problem {
    report({ kind: 'call-avoided', upstream, reason: 'volume' })
    const longest = Math.max(...options.limits.map((limit) => limit.windowMs), LEAST_RETRY_AFTER_MS)
    return new Problem('volume-exhausted', {
      retryAfterMs: Math.min(Math.max(LEAST_RETRY_AFTER_MS, retryAfterMs), longest * 2),
      detail: `the volume agreed for ${upstream} is used up, and waiting does not fit the time this request has`
    })
  }
}

/**
 * Reads which bucket a request belongs to: `path[N]`, the N-th segment from 0 behind the upstream's prefix, or
 * `header:NAME`, of which only a digest is kept, as it may be a key. Empty where there is none.
 */
export function volumeKey(spec: string | undefined): (request: Pick<Request, 'target' | 'fields'>) => string {
  if (spec === undefined) return () => ''
  if (spec.startsWith('header:')) {
    const name = spec.slice('header:'.length).trim().toLowerCase()
    return ({ fields }) => digest(field(fields, name) ?? '')
  }
  const index = Number(/\d+/.exec(spec)?.[0] ?? 0)
  return ({ target }) => {
    const segment = segmentOf(pathOf(target), index)
    return segment.length <= LONGEST_KEY ? segment : digest(segment)
  }
}

function segmentOf(path: string, index: number): string {
  let from = path.startsWith('/') ? 1 : 0
  for (let skipped = 0; skipped < index; skipped++) {
    from = path.indexOf('/', from) + 1
    if (from === 0) return ''
  }
  const end = path.indexOf('/', from)
  return unescapeUnreserved(end === -1 ? path.slice(from) : path.slice(from, end))
}

function digest(value: string): string {
  return value === '' ? '' : hash('sha256', value, 'hex').slice(0, 32)
}
