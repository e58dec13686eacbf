import { chain, type Policy, type Send } from './exchange/chain.ts'
import type { UpstreamTools } from './exchange/tools.ts'
import type { UpstreamOptions } from './config/schema.ts'
import { authorize } from './policies/authorize.ts'
import { breaker, type Breaker } from './policies/breaker.ts'
import { cache, type Cache } from './policies/cache/cache.ts'
import { deadline } from './policies/deadline.ts'
import { gate } from './policies/gate.ts'
import { guard } from './policies/guard.ts'
import { idempotency } from './policies/idempotency.ts'
import { notices } from './policies/notices.ts'
import { retry } from './policies/retry.ts'
import { timeout } from './policies/timeout.ts'
import { volume, volumeKey } from './policies/volume.ts'
import type { Store } from './state/store.ts'
import type { Credentials } from './tokens/source.ts'
import type { Transport } from './transport/transport.ts'

export type PipelineTools = UpstreamTools & {
  readonly store: Store
  readonly credentials: Credentials
  readonly transport: Transport
  /** Seals answers that are kept in the state. */
  readonly sealKey: Buffer
  /** Outermost of all: background operations and the polling broker (`operations/`). */
  readonly operations: Policy
}

/** The chain of one upstream, with the handles an operator has on it. */
export type Pipeline = { readonly send: Send; readonly policies: readonly string[]; readonly breaker: Breaker; readonly cache: Cache }

/**
 * THE list: what happens to a request, in this order on the way out and in reverse on the way back. This page is the
 * product; each room keeps one promise of `contract.md` §4, and the order gives the laws in `docs/architecture.md`.
 */
export function pipeline(options: UpstreamOptions, tools: PipelineTools): Pipeline {
  const theBreaker = breaker(options.breaker, tools)
  const theCache = cache(options.cache, { ...tools, identityOf })
  const keyOf = volumeKey(options.volume.key)

  function identityOf(credential: string | undefined, target: string): string {
    return credential === undefined ? '' : (tools.credentials.get(credential)?.identity(target) ?? credential)
  }

  const policies: readonly Policy[] = [
    // once per request
    guard(options.operations, tools), //                 nobody below sees an operation that was never agreed
    tools.operations, //                                 work that may outlive its caller leaves the caller's deadline here
    deadline(options.timeout, tools), //                 every wait below is measured against it
    idempotency(tools), //            a repeated POST is answered before anything is asked
    theCache.policy, //                                  a hit costs no token, no volume, no attempt
    // may replay
    retry(options.retry, tools), //                      the only place that asks again
    gate(options.waitDefault, { ...tools, keyOf }), //   when the provider says wait, everybody waits, before a token is spent
    authorize({ baseUrl: options.baseUrl }, tools), //   nothing is sent without a credential; its failures are not the API's
    // once per attempt
    theBreaker.policy, //                                counts attempts, a replay after 401 included
    volume(options.volume, tools), //                    n attempts cost n units; an open breaker costs none
    notices(tools), //                                   reads what the provider announces, on every answer
    timeout(options.timeout, tools) //                   inside volume: waiting for a slot is not the provider being slow
  ]

  return { send: chain(policies, tools.transport.send), policies: policies.map((policy) => policy.name), breaker: theBreaker, cache: theCache }
}

/** The order above by name, for the tests that pin it. */
export const PIPELINE = [
  'guard',
  'operations',
  'deadline',
  'idempotency',
  'cache',
  'retry',
  'gate',
  'authorize',
  'breaker',
  'volume',
  'notices',
  'timeout'
] as const
