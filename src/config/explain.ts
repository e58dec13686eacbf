import { pathOf } from '../exchange/message.ts'
import type { ProblemCode } from '../exchange/problem.ts'
import { operationRouter } from '../http/operation-router.ts'
import { firstRoute, routeMatcher } from '../http/route.ts'
import { targetFault } from '../http/target.ts'
import { leaseSelector } from '../policies/leases.ts'
import { nearest } from './findings.ts'
import type { Config, UpstreamOptions } from './schema.ts'
import { credentialSelector, operationNamer } from './selection.ts'
import { formatDuration as human } from './units.ts'

/** What one policy does with a request, and the settings it does it by. */
export type PolicyExplanation = { readonly policy: string; readonly does: string; readonly settings: Readonly<Record<string, unknown>> }

/** What would happen to a request; sends nothing and looks at no state. Settings are as people write them. */
export type Explanation = {
  readonly request: string
  /** Set where the request would be answered here, without the provider. */
  readonly answer?: { readonly code: ProblemCode; readonly why: string; readonly suggestions?: readonly string[] }
  readonly upstream?: string
  /** Where the call would go. */
  readonly url?: string
  readonly agreement?: string
  readonly operation?: string
  readonly credential?: { readonly name: string; readonly grant?: string; readonly why: string }
  /** What a stored answer is found by; undefined for methods whose answers are not stored. */
  readonly cacheKey?: readonly string[]
  readonly policies?: readonly PolicyExplanation[]
}

const IDEMPOTENT = ['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE']
const METHOD = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/

/**
 * Says which upstream, operation, policies, credential and cache key would serve a request, and why. `path` is as the app
 * asks for it: `/UPSTREAM/path?query`, or a whole URL of the sidecar.
 */
export function explain(config: Config, method: string, path: string): Explanation {
  const asked = path.replace(/^https?:\/\/[^/]*/, '')
  const request = `${method} ${asked}`
  const fault = METHOD.test(method) ? targetFault(asked) : 'the method is no token'
  if (fault !== undefined) return { request, answer: { code: 'bad-request', why: fault } }

  const [, prefix = ''] = pathOf(asked).split('/')
  const upstream = Object.hasOwn(config.upstreams, prefix) ? config.upstreams[prefix] : undefined
  if (upstream === undefined) {
    const names = Object.keys(config.upstreams)
    const meant = nearest(prefix, names)
    return {
      request,
      answer: {
        code: 'unknown-upstream',
        why: `the path begins with the name of an upstream: ${names.join(', ')}`,
        ...(meant === undefined ? {} : { suggestions: [`/${meant}`] })
      }
    }
  }
  const rest = asked.slice(prefix.length + 1)
  const target = rest.startsWith('/') ? rest : `/${rest}`
  return { request, ...explainUpstream(config, prefix, upstream, method, target) }
}

function explainUpstream(config: Config, name: string, upstream: UpstreamOptions, method: string, target: string): Omit<Explanation, 'request'> {
  const path = pathOf(target)
  const url = upstream.baseUrl.replace(/\/$/, '') + target
  const refusal = refusedBy(upstream, method, path)
  const credential = credentialSelector(upstream.credential)(method, path)
  return {
    ...(refusal === undefined ? {} : { answer: refusal }),
    upstream: name,
    url,
    ...(upstream.agreement === undefined ? {} : { agreement: upstream.agreement }),
    operation: operationNamer(upstream)(method, path),
    credential: explainCredential(config, upstream, credential, method, path),
    ...(method === 'GET' || method === 'HEAD'
      ? {
          cacheKey: [
            `GET ${url}`,
            `identity of ${credential ?? 'the caller’s own Authorization'}`,
            ...upstream.cache.vary.map((field) => `${field} of the request`)
          ]
        }
      : {}),
    policies: policiesFor(upstream, credential, method, path)
  }
}

function refusedBy({ operations }: UpstreamOptions, method: string, path: string): Explanation['answer'] {
  const { allow = [], unknown } = operations
  if (allow.length === 0 || unknown === 'report') return undefined
  const router = operationRouter(allow)
  if (router.find(method, path) !== undefined) return undefined
  return { code: 'unknown-operation', why: 'none of the allowed operations', suggestions: router.nearest(method, path) }
}

function explainCredential(
  config: Config,
  upstream: UpstreamOptions,
  name: string | undefined,
  method: string,
  path: string
): NonNullable<Explanation['credential']> {
  const choice = upstream.credential ?? 'none'
  const isList = typeof choice !== 'string'
  if (name === undefined) {
    const why = isList ? 'no entry of the list with a credential matches' : 'the upstream has none; Authorization of the caller passes'
    return { name: 'none', why }
  }
  const entry = isList ? choice[firstRoute(choice.map((item) => item.match ?? '/**'))(method, path)] : undefined
  const grant = config.credentials[name]?.grant
  return {
    name,
    ...(grant === undefined ? {} : { grant }),
    why: isList ? `the first entry that matches: ${entry?.match ?? 'everything'}` : 'the credential of the upstream'
  }
}

// in the order of pipeline.ts; a test holds the two together
function policiesFor(upstream: UpstreamOptions, credential: string | undefined, method: string, path: string): PolicyExplanation[] {
  const { operations, timeout, cache, leases, retry, waitDefault, breaker, volume } = upstream
  const isRead = method === 'GET' || method === 'HEAD'
  const rule = cache.rules[firstRoute(cache.rules.map((item) => item.match))(method, path)]
  const lease = leaseSelector(leases)(method, path)
  const allowed = operations.allow ?? []
  const say = (policy: string, does: string, settings: Record<string, unknown> = {}): PolicyExplanation => ({ policy, does, settings })
  return [
    say('guard', allowed.length === 0 ? 'lets every operation pass' : `lets the ${allowed.length} allowed operations pass`, { unknown: operations.unknown }),
    say('operations', 'carries it out in the background where Prefer: respond-async or wait asks for it', {
      first: human(upstream.async.poll.first),
      factor: upstream.async.poll.factor,
      max: human(upstream.async.poll.max),
      deadline: human(upstream.async.poll.deadline)
    }),
    say('deadline', 'gives up when the whole request has taken too long', { total: human(timeout.total) }),
    say('idempotency', 'answers a repeated Idempotency-Key with the first answer'),
    say(
      'leases',
      lease === undefined ? 'passes it on: its answer is no secret on loan' : 'asks once, then answers from the state until most of the validity has passed',
      lease
    ),
    say('cache', isRead ? cacheWords(rule?.match) : 'stores nothing; a success drops what is stored for the same path', {
      mode: cache.mode,
      heuristic: cache.heuristic,
      negative: humanValues(cache.negative),
      staleIfError: cache.staleIfError === undefined ? '1h while the provider cannot be reached' : human(cache.staleIfError),
      staleWhileRevalidate: human(cache.staleWhileRevalidate),
      ...(rule === undefined ? {} : { ttl: human(rule.ttl) })
    }),
    say('retry', retryWords(retry, method, path), { attempts: retry.attempts, backoff: retry.backoff.map(human), on: retry.on }),
    say('gate', 'waits while the provider has said wait', { waitDefault: humanValues(waitDefault) }),
    say('authorize', credential === undefined ? 'adds nothing' : `adds the authorization of ${credential}`),
    say('breaker', 'sends nothing while cooling down after consecutive failures', {
      failures: breaker.failures,
      cooldown: human(breaker.cooldown),
      maxCooldown: human(breaker.maxCooldown)
    }),
    say('volume', volume.limits.length === 0 ? 'limits concurrency only' : 'keeps to the agreed volume', {
      limits: volume.limits.map((limit) => limit.label),
      ...(volume.key === undefined ? {} : { key: volume.key }),
      concurrency: volume.concurrency,
      onExceed: volume.onExceed
    }),
    say('notices', 'reads Deprecation and Sunset from the answer'),
    say('journal', 'writes down that a background request is being sent, so that it is not sent twice'),
    say('timeout', 'ends an attempt that takes too long', { connect: human(timeout.connect), response: human(timeout.response), idle: human(timeout.idle) })
  ]
}

function humanValues(durations: Readonly<Record<string, number>>): Record<string, string> {
  return Object.fromEntries(Object.entries(durations).map(([key, ms]) => [key, human(ms)]))
}

function cacheWords(rule: string | undefined): string {
  return rule === undefined ? 'stores what the provider allows, for as long as it says' : `stores by the rule ${rule} where the provider names no freshness`
}

function retryWords(retry: UpstreamOptions['retry'], method: string, path: string): string {
  if (routeMatcher(retry.never)(method, path)) return 'sends it once: listed under retry.never'
  if (IDEMPOTENT.includes(method)) return `repeats it: ${method} is idempotent`
  if (routeMatcher(retry.routes)(method, path)) return 'repeats it: declared safe under retry.routes'
  return 'sends it once, unless it has an Idempotency-Key or provably did not arrive'
}
