import type { Signal } from '../exchange/signal.ts'
import { createHmac, randomBytes } from 'node:crypto'
import type { Policy, Send } from '../exchange/chain.ts'
import { payloadFingerprint, reusedKey } from '../exchange/idempotency-key.ts'
import { pathOf, type Request, type Response } from '../exchange/message.ts'
import { Problem } from '../exchange/problem.ts'
import { field } from '../http/fields.ts'
import { repeatableBy } from '../http/repeatable.ts'
import type { Entry } from './journal.ts'
import { outcomeAnswer, progressAnswer } from './outcome.ts'
import { poller, type Poller } from './polling.ts'
import { Stopped, newTrace, runOf, type OperationsTools, type Run, type Settled } from './run.ts'
import { dropRest, runs } from './runs.ts'

export type Operations = {
  /** The policy of one upstream: decides what leaves its caller's deadline, and paces looks at awaited results. */
  policy(upstream: string): Policy
  /** Answers `/_attache/operations/ID`; undefined where there is no such operation. Rejects with a 405 problem. */
  handle(method: string, id: string): Promise<Response | undefined>
  /** Takes up what an earlier process left, once the upstreams are there. */
  resume(): Promise<void>
  /** After a reload: waiting operations go on in the new chains. */
  refresh(): void
  /** Ends before the transports do; what has not ended is left to the next start. */
  close(): Promise<void>
}

const PATH = '/_attache/operations/'
const ID = /^[\w-]{22}$/

/**
 * Work that outlives its caller (RFC 7240, contract §3): `Prefer: respond-async`, `Prefer: wait=N` that runs out, and the
 * broker that polls a provider's 202 on behalf of all who wait.
 */
export function operations(tools: OperationsTools): Operations {
  const { clock, upstreamOf, sealKey } = tools
  const background = runs(tools)
  const pollers = new Map<string, Poller>()

  function pollerOf(upstream: string): Poller {
    const known = pollers.get(upstream)
    if (known !== undefined) return known
    const made = poller(
      () => {
        const found = upstreamOf(upstream)
        if (found === undefined) return undefined
        const { base, credentialOf, operationOf } = found.door
        return { base, credentialOf, operationOf, poll: found.options.async.poll, totalMs: found.options.timeout.total }
      },
      { ...tools, upstream }
    )
    pollers.set(upstream, made)
    return made
  }

  function policy(upstream: string): Policy {
    const polling = pollerOf(upstream)

    return function operations(request, next) {
      const { respondAsync, waitMs } = request.wishes
      return respondAsync || waitMs !== undefined ? preferring(request, next) : polling.ask(request, next)
    }

    async function preferring(request: Request, next: Send): Promise<Response> {
      const { respondAsync, waitMs, timeoutMs } = request.wishes
      const untilAt = clock.now() + Math.min(waitMs ?? 0, timeoutMs ?? Infinity)
      // what cannot be kept is done while the caller waits: a preference may be ignored (RFC 7240 §2)
      const canBeKept = request.body.kind !== 'stream'
      if (respondAsync && canBeKept) return later(request, untilAt)
      if (waitMs !== undefined && canBeKept && isRepeatable(request)) return waitThenLater(request, untilAt, polling, next)
      const answer = await polling.ask(request, next)
      return waitMs === undefined ? answer : polling.follow(request, answer, untilAt, next)
    }
  }

  function isRepeatable(request: Request): boolean {
    const retry = upstreamOf(request.upstream)?.options.retry
    return retry !== undefined && repeatableBy(retry.routes, retry.never)(request.method, pathOf(request.target), request.wishes.idempotencyKey !== undefined)
  }

  /** `respond-async`, with `wait` only if it takes longer than that. */
  async function later(request: Request, untilAt: number): Promise<Response> {
    const run = runOf(entryOf(request), request.body, newTrace())
    const isNew = !(await isKnown(run.entry)) && (await background.keep(run, () => background.carryOut(run)))
    const settled = isNew && untilAt > clock.now() ? await within(run.concluded, untilAt, request.signal) : undefined
    if (settled !== undefined) return unwrapped(settled)
    void run.concluded.then(dropRest)
    return accepted(run.entry, request)
  }

  /** `wait=N` for a request that may be repeated: the caller leaves after N, the request goes on. */
  async function waitThenLater(request: Request, untilAt: number, polling: Poller, next: Send): Promise<Response> {
    const run = runOf(entryOf(request), request.body, request.trace)
    request.signal.addEventListener('abort', () => run.isKept || run.controller.abort(request.signal.reason), { once: true })
    const carried = background.carryOut(run)
    const settled = await within(carried, untilAt, request.signal)
    if (settled !== undefined) return polling.follow(request, unwrapped(settled), untilAt, next)
    try {
      const isNew = !(await isKnown(run.entry)) && (await background.keep(run, () => carried))
      if (!isNew) run.controller.abort(new Stopped('cancelled'))
    } catch (error) {
      run.controller.abort(error)
      throw error
    } finally {
      carried.catch(ignoreAbandoned)
      void run.concluded.then(dropRest)
    }
    return accepted(run.entry, request)
  }

  function entryOf(request: Request): Entry {
    const { upstream, method, target, operation, fields, credential, wishes } = request
    const { idempotencyKey } = wishes
    return {
      upstream,
      method,
      target,
      operation,
      fields,
      id: idempotencyKey === undefined ? randomBytes(16).toString('base64url') : keyedId(request, idempotencyKey),
      requestId: request.id,
      ...(credential === undefined ? {} : { credential }),
      ...(idempotencyKey === undefined ? {} : { idempotencyKey }),
      fingerprint: payloadFingerprint(request),
      isRepeatable: isRepeatable(request),
      deadlineAt: clock.now() + (upstreamOf(upstream)?.options.async.deadline ?? 0)
    }
  }

  // the same key names the same operation, over restarts and replicas, and nobody else can guess its id
  function keyedId(request: Request, key: string): string {
    const parts = [request.upstream, request.credential ?? '', field(request.fields, 'authorization') ?? '', key]
    return createHmac('sha256', sealKey).update(JSON.stringify(parts)).digest('base64url').slice(0, 22)
  }

  /** Whether this very operation has been accepted before. Rejects where its key came with another payload. */
  async function isKnown(entry: Entry): Promise<boolean> {
    if (entry.idempotencyKey === undefined) return false
    const { records, live } = background
    const ended = live.has(entry.id) ? undefined : await records.outcome(entry.id)
    // after a failure or an unknown outcome the key may be sent again
    if (ended?.outcome.isProblem === true) return false
    const known = live.get(entry.id)?.entry ?? ended?.outcome ?? (await records.request(entry.id))?.entry
    if (known !== undefined && known.fingerprint !== entry.fingerprint) throw reusedKey()
    return known !== undefined
  }

  function accepted(entry: Entry, request: Request): Response {
    const { respondAsync, waitMs } = request.wishes
    const applied = [...(respondAsync ? ['respond-async'] : []), ...(waitMs === undefined ? [] : [`wait=${Math.round(waitMs / 1000)}`])].join(', ')
    const run = background.live.get(entry.id)
    const progress = run === undefined ? { id: entry.id, state: 'waiting' as const, attempt: 0 } : background.progressOf(run)
    return progressAnswer(progress, ['Location', PATH + entry.id, 'Preference-Applied', applied])
  }

  /** The value of a promise, undefined where it takes until `untilAt`; leaving abandons the wait only. */
  function within<T>(promise: Promise<T>, untilAt: number, signal: Signal): Promise<T | undefined> {
    return new Promise((resolve, reject) => {
      const leave = (): void => reject(signal.reason)
      const timer = clock.after(untilAt - clock.now(), () => {
        signal.removeEventListener('abort', leave)
        resolve(undefined)
      })
      signal.addEventListener('abort', leave, { once: true })
      promise.then(resolve, reject).finally(() => {
        timer.cancel()
        signal.removeEventListener('abort', leave)
      })
    })
  }

  async function handle(method: string, id: string): Promise<Response | undefined> {
    if (!ID.test(id)) return undefined
    if (method === 'GET' || method === 'HEAD') return report(id)
    if (method === 'DELETE') return cancel(id)
    throw new Problem('bad-request', { status: 405, detail: 'an operation can be read (GET) and cancelled (DELETE)', fields: ['Allow', 'GET, HEAD, DELETE'] })
  }

  async function report(id: string): Promise<Response | undefined> {
    const { records, live } = background
    const run = live.get(id)
    if (run !== undefined) return progressAnswer(background.progressOf(run))
    const ended = await records.outcome(id)
    if (ended !== undefined) return outcomeAnswer(ended.outcome, ended.body)
    // accepted by another replica, or not yet taken up
    return (await records.request(id)) === undefined ? undefined : progressAnswer(await elsewhere(id))
  }

  async function elsewhere(id: string): Promise<Parameters<typeof progressAnswer>[0]> {
    const { isSending, attempts } = await background.records.state(id)
    return { id, state: isSending ? 'running' : 'waiting', attempt: attempts }
  }

  async function cancel(id: string): Promise<Response | undefined> {
    const { records, live } = background
    const run = live.get(id)
    if (run !== undefined) return cancelRun(run)
    const pending = await records.request(id)
    if (pending !== undefined) {
      await records.cancel(pending.entry)
      return progressAnswer({ ...(await elsewhere(id)), state: 'cancelling' })
    }
    if ((await records.outcome(id)) === undefined) return undefined
    await background.release(id)
    return { status: 204, fields: [], body: { kind: 'none' }, source: 'local' }
  }

  /** 204, or the outcome where the request may have been carried out already. */
  async function cancelRun(run: Run): Promise<Response> {
    await run.accepting
    run.controller.abort(new Stopped('cancelled'))
    await run.concluded
    const ended = await background.records.outcome(run.entry.id)
    if (ended !== undefined) return outcomeAnswer(ended.outcome, ended.body)
    return { status: 204, fields: [], body: { kind: 'none' }, source: 'local' }
  }

  return { policy, handle, resume: background.resume, refresh: background.refresh, close: background.close }
}

function unwrapped(settled: Settled): Response {
  if (settled.kind === 'problem') throw settled.problem
  return settled.answer
}

function ignoreAbandoned(): void {}
