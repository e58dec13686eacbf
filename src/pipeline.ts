import { chain, type Policy, type Send } from './exchange/chain.ts'
import type { UpstreamTools } from './exchange/tools.ts'
import type { UpstreamOptions } from './config/schema.ts'
import { attemptMark } from './operations/attempt-mark.ts'
import { authorize } from './policies/authorize.ts'
import { breaker, type Breaker } from './policies/breaker.ts'
import { cache, type Cache } from './policies/cache/cache.ts'
import { deadline } from './policies/deadline.ts'
import { gate } from './policies/gate.ts'
import { guard } from './policies/guard.ts'
import { idempotency } from './policies/idempotency.ts'
import { leases } from './policies/leases.ts'
import { notices } from './policies/notices.ts'
import { retry } from './policies/retry.ts'
import { timeout } from './policies/timeout.ts'
import { volume, volumeKey } from './policies/volume.ts'
import type { SecondTier } from './state/second-tier.ts'
import type { Store } from './state/store.ts'
import type { Credentials } from './tokens/source.ts'
import type { Transport } from './transport/transport.ts'

export type PipelineTools = UpstreamTools & {
  readonly store: Store
  readonly credentials: Credentials
  readonly transport: Transport
  /** Seals answers that are kept in the state. */
  readonly sealKey: Buffer
  /** Where replicas share cached answers, if anywhere. */
  readonly secondTier?: SecondTier | undefined
  /** Outermost of all: background operations and the polling broker (`operations/`). */
  readonly operations: Policy
}

/** The chain of one upstream, with the handles an operator has on it. */
export type Pipeline = {
  readonly send: Send
  /** For requests to go on in another protocol, which is no answer to keep, to repeat or to wait for in the background. */
  readonly upgrade: Send
  readonly policies: readonly string[]
  readonly breaker: Breaker
  readonly cache: Cache
}

const ONLY_FOR_ANSWERS = new Set(['operations', 'idempotency', 'cache', 'retry'])

/**
 * THE list: what happens to a request, in this order on the way out and in reverse on the way back. This page is the
 * product; each room keeps one promise of `contract.md` §4, and the order gives the laws in `docs/architecture.md`.
 */
export function pipeline(options: UpstreamOptions, tools: PipelineTools): Pipeline {
  const theBreaker = breaker(options.breaker, tools)
  const theCache = cache(options.cache, { ...tools, baseUrl: options.baseUrl, scope: JSON.stringify(options), settleMs: options.async.settle, identityOf })

  function identityOf(credential: string | undefined, target: string): string {
    return credential === undefined ? '' : (tools.credentials.get(credential)?.identity(target) ?? credential)
  }

  const policies: readonly Policy[] = [
    // --- once per request
    // nobody below sees an operation that was never agreed
    guard(options.operations, tools),
    // work that may outlive its caller leaves the caller's deadline here
    tools.operations,
    // every wait below is measured against it
    deadline(options.timeout, tools),
    // a repeated POST is answered before anything is asked
    idempotency(tools),
    // a secret on loan outlives the process and any cache
    leases({ rules: options.leases, fields: options.cache.vary, totalMs: options.timeout.total }, { ...tools, baseUrl: options.baseUrl, identityOf }),
    // a hit costs no token, no volume and no attempt
    theCache.policy,

    // --- may replay
    // the only place that asks again; nobody waits for an attempt an open breaker would refuse
    retry(options.retry, { ...tools, breaker: theBreaker }),
    // when the provider says wait, everybody waits, before a token is spent
    gate(options.waitDefault, { ...tools, keyOf: volumeKey(options.volume.key) }),
    // nothing is sent without a credential; the token service's failures are not the API's
    authorize({ baseUrl: options.baseUrl }, tools),

    // --- once per attempt
    // counts attempts, a replay after 401 included
    theBreaker.policy,
    // n attempts cost n units, an open breaker costs none
    volume(options.volume, tools),
    // reads what the provider announces, on every answer
    notices(tools),
    // nothing below waits any more: now it is written down that a background request is being sent
    attemptMark(),
    // inside volume, because waiting for a slot is not the provider being slow
    timeout(options.timeout, tools)
  ]

  const send = chain(policies, tools.transport.send)
  const upgrade = chain(
    policies.filter((policy) => !ONLY_FOR_ANSWERS.has(policy.name)),
    tools.transport.send
  )
  return { send, upgrade, policies: policies.map((policy) => policy.name), breaker: theBreaker, cache: theCache }
}

/** The order above by name, for the tests that pin it. */
export const PIPELINE = [
  'guard',
  'operations',
  'deadline',
  'idempotency',
  'leases',
  'cache',
  'retry',
  'gate',
  'authorize',
  'breaker',
  'volume',
  'notices',
  'journal',
  'timeout'
] as const
