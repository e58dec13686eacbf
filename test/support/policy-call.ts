import type { Event } from '../../src/exchange/events.ts'
import { NO_BODY, type Body, type Request, type Response } from '../../src/exchange/message.ts'

/** A request as the server hands it to the first policy. */
export function requestTo(method: string, target: string, more: Partial<Request> = {}): Request {
  return {
    id: 'r1',
    upstream: 'acme',
    method,
    target,
    operation: 'other',
    fields: [],
    body: NO_BODY,
    signal: new AbortController().signal,
    deadlineAt: Infinity,
    wishes: { waitMs: undefined, respondAsync: false, timeoutMs: undefined, idempotencyKey: undefined },
    credential: undefined,
    trace: { attempts: 0, upstreamMs: 0, waitMs: 0, tokenMs: 0, sent: false },
    ...more
  }
}

/** A provider's answer with a small body. */
export function answerOf(status: number, body = '', fields: readonly string[] = []): Response {
  return { status, fields, body: bytesBody(body), source: 'upstream' }
}

export function bytesBody(text: string): Body {
  return text === '' ? NO_BODY : { kind: 'bytes', bytes: Buffer.from(text) }
}

/** A place to report to that remembers. */
export function reports(): { events: Event[]; report: (event: Event) => void } {
  const events: Event[] = []
  return { events, report: (event) => void events.push(event) }
}
