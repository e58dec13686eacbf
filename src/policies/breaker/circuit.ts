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

/** One generation of the breaker: it begins closed, or half-open for a single probe, and never outlives its period. */
export type Circuit = {
  /** Resolves with an answer that counts as success; rejects with `FailedAnswer` or whatever the attempt rejected with. */
  fire(request: Request, next: Send): Promise<Response>
  open(): void
  retire(): void
}

// opossum hands this to setTimeout; our own clock decides about the half-open state long before
const NEVER_MS = 2 ** 31 - 1

/**
 * opossum, tamed: it holds the state and lets exactly one probe through when half-open. Everything else it would do by
 * itself is switched off, because it counts percentages, keeps time with `Date.now` and one fixed reset time, and lets a
 * late success from before an outage close it. Hence one circuit per generation: what an old one still hears is lost on
 * the new one.
 */
export function circuit(begins: 'closed' | 'half-open', isFailure: (status: number) => boolean): Circuit {
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
    // never opens by percentage: consecutive failures are counted outside
    volumeThreshold: Number.MAX_SAFE_INTEGER,
    resetTimeout: NEVER_MS,
    rollingCountBuckets: 1,
    // its statistics are not used: this keeps it from setting a timer for them
    rotateBucketController: new EventEmitter(),
    state: { closed: begins === 'closed', halfOpen: begins === 'half-open' }
  })

  return {
    fire(request, next) {
      // while closed there is nothing for opossum to decide, and its bookkeeping costs as much as all other policies
      if (begins === 'closed') return attempt(request, next)
      return opossum.fire(request, next)
    },
    open: () => opossum.open(),
    retire: () => opossum.shutdown()
  }
}
