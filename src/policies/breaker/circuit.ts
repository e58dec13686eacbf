import { EventEmitter } from 'node:events'
import CircuitBreaker from 'opossum'
import type { Send } from '../../exchange/chain.ts'
import type { Request, Response } from '../../exchange/message.ts'

/** An answer that counts as a failure: thrown inside the circuit, turned back into an answer outside. */
export class FailedAnswer extends Error {
  readonly response: Response

  constructor(response: Response) {
    super(`the provider answered ${response.status}`)
    this.name = 'FailedAnswer'
    this.response = response
  }
}

/** What lets a single probe through, and is good for that probe only. */
export type Circuit = {
  /** Resolves with an answer that counts as success; rejects with `FailedAnswer` or whatever the attempt rejected with. */
  fire(request: Request, next: Send): Promise<Response>
  retire(): void
}

// opossum hands this to setTimeout; our own clock decides about the half-open state long before
const NEVER_MS = 2 ** 31 - 1

/**
 * opossum, tamed: half-open from the start, it lets exactly one attempt through. Everything else it would do by itself is
 * switched off or never asked of it, because it counts percentages, keeps time with `Date.now` and one fixed reset time,
 * and lets a late success from before an outage close it. Hence one circuit for each probe.
 */
export function circuit(isFailure: (status: number) => boolean): Circuit {
  async function attempt(request: Request, next: Send): Promise<Response> {
    const response = await next(request)
    if (isFailure(response.status)) throw new FailedAnswer(response)
    return response
  }

  const opossum = new CircuitBreaker(attempt, {
    name: 'breaker',
    timeout: false,
    enableSnapshots: false,
    rollingPercentilesEnabled: false,
    // never opens by percentage
    volumeThreshold: Number.MAX_SAFE_INTEGER,
    resetTimeout: NEVER_MS,
    rollingCountBuckets: 1,
    // its statistics are not used: this keeps it from setting a timer for them
    rotateBucketController: new EventEmitter(),
    state: { closed: false, halfOpen: true }
  })

  return {
    fire: (request, next) => opossum.fire(request, next),
    retire: () => opossum.shutdown()
  }
}
