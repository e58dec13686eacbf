import type { Request, Response } from './message.ts'

/** Sends a request onwards; resolves at the answer's header, rejects with a `Problem`. */
export type Send = (request: Request) => Promise<Response>

/** One layer of the onion: may call `next` never (a local answer), once, or several times (retry). */
export type Policy = (request: Request, next: Send) => Promise<Response>

/** Composes policies, first one outermost, around the transport. Built once per upstream, not per request. */
export function chain(policies: readonly Policy[], transport: Send): Send {
  return policies.reduceRight<Send>((next, policy) => (request) => policy(request, next), transport)
}
