import { chain, type Send } from '../../src/exchange/chain.ts'
import type { CallerWishes, Request, Response } from '../../src/exchange/message.ts'
import { attemptMark } from '../../src/operations/attempt-mark.ts'
import { operations, type Operations } from '../../src/operations/operations.ts'
import type { OperationsUpstream } from '../../src/operations/run.ts'
import type { Store } from '../../src/state/store.ts'
import { localAnswer } from '../../src/server/local-answer.ts'
import { bytesBody, reports, requestTo } from './policy-call.ts'
import type { TestClock } from './clock.ts'

/** A sidecar's background room over a provider given as a function; several may share a store, like restarts or replicas. */
export type Background = {
  readonly operations: Operations
  /** The chain as the app meets it. */
  readonly send: Send
  readonly events: ReturnType<typeof reports>['events']
  /** What `GET /_attache/operations/ID` says, parsed. */
  look(location: string): Promise<{ status: number; document: Record<string, unknown> } | undefined>
}

type AsyncOptions = OperationsUpstream['options']['async']

export function background(
  provider: Send,
  parts: { clock: TestClock; store: Store; name?: string; async?: Partial<AsyncOptions>; retry?: Partial<OperationsUpstream['options']['retry']> }
): Background {
  const { clock, store } = parts
  const { events, report } = reports()
  const poll = { first: 250, factor: 1.6, max: 30_000, deadline: 300_000 }
  const upstream: OperationsUpstream = {
    door: { base: new URL('https://api.test/base/'), prefix: '/acme', credentialOf: () => 'key', operationOf: () => 'other', send: (request) => send(request) },
    options: {
      async: { poll, settle: 300_000, deadline: 86_400_000, keep: 86_400_000, operations: 1000, maxBytes: 64 * 1024 * 1024, ...parts.async },
      retry: { attempts: 3, backoff: [10_000, 30_000, 60_000], on: [408, 425, 429, 500, 502, 503, 504], routes: [], never: [], ...parts.retry },
      timeout: { total: 150_000 }
    }
  }
  const room = operations({
    clock,
    random: () => 0,
    report,
    store,
    sealKey: Buffer.alloc(32, 3),
    upstreamOf: (name) => (name === (parts.name ?? 'acme') ? upstream : undefined),
    problemAnswer: localAnswer
  })
  const send: Send = chain([room.policy('acme'), attemptMark()], (request) => {
    request.trace.attempts += 1
    request.trace.sent = true
    return provider(request)
  })
  return {
    operations: room,
    send,
    events,
    async look(location) {
      const answer = await room.handle('GET', location.split('/').at(-1) ?? '')
      return answer === undefined ? undefined : { status: answer.status, document: documentOf(answer) }
    }
  }
}

export function documentOf(answer: Response): Record<string, unknown> {
  return answer.body.kind === 'bytes' ? (JSON.parse(answer.body.bytes.toString()) as Record<string, unknown>) : {}
}

/** A request with wishes of the caller. */
export function wishing(method: string, target: string, wishes: Partial<CallerWishes>, more: Partial<Request> & { text?: string } = {}): Request {
  const { text = '', ...rest } = more
  return requestTo(method, target, {
    wishes: { waitMs: undefined, respondAsync: false, timeoutMs: undefined, idempotencyKey: undefined, ...wishes },
    body: bytesBody(text),
    credential: 'key',
    ...rest
  })
}

export const LATER = { respondAsync: true }
