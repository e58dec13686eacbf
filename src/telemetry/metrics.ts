import { Registry, collectDefaultMetrics } from 'prom-client'
import type { Event } from '../exchange/events.ts'
import { counter as aCounter, gauge as aGauge, histogram as aHistogram } from './instruments.ts'

const SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 150]
const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])

const UNFIT = [
  // gauges with a counter's name, which promtool objects to; the same numbers are there by type
  'nodejs_active_handles_total',
  'nodejs_active_requests_total',
  'nodejs_active_resources_total',
  // they contain the time between two looks and would tell nothing else; what is late shows in max, p90, p99
  'nodejs_eventloop_lag_min_seconds',
  'nodejs_eventloop_lag_mean_seconds',
  'nodejs_eventloop_lag_stddev_seconds',
  'nodejs_eventloop_lag_p50_seconds'
]

/** The Prometheus side of the house: takes events, gives the text of `/metrics`. */
export type Metrics = {
  count(event: Event): void
  /** Gives the gauges of an upstream their values at rest, so that they are there before anything has happened; those it has stay. */
  expect(upstream: string): void
  text(): Promise<string>
  readonly contentType: string
}

/** The metrics of contract §5; `version` and `node` label `attache_build_info`. */
export function metrics(build: { version: string; node: string }): Metrics {
  const registry = new Registry()
  // the event loop is looked at ten times a second; prom-client's hundred would be most of what an idle sidecar does
  collectDefaultMetrics({ register: registry, eventLoopMonitoringPrecision: 100 })
  for (const name of UNFIT) registry.removeSingleMetric(name)

  const counter = (name: string, help: string, labelNames: readonly string[]) => aCounter(registry, { name, help, labelNames })
  const gauge = (name: string, help: string, labelNames: readonly string[]) => aGauge(registry, { name, help, labelNames })
  const histogram = (name: string, help: string, labelNames: readonly string[]) => aHistogram(registry, { name, help, labelNames }, SECONDS)

  const requests = counter('attache_requests_total', 'Requests of the app', ['upstream', 'operation', 'method', 'code', 'source'])
  const requestDuration = histogram('attache_request_duration_seconds', 'From the request’s header to the answer’s last byte', ['upstream', 'source'])
  const overhead = histogram('attache_overhead_seconds', 'Request duration without the provider, agreed waits and the token service', ['upstream'])
  const attempts = counter('attache_attempts_total', 'Calls made to the provider', ['upstream', 'code', 'result'])
  const attemptDuration = histogram('attache_attempt_duration_seconds', 'From sending an attempt to its header', ['upstream'])
  const retries = counter('attache_retries_total', 'Attempts after the first', ['upstream', 'reason'])
  const operationFailures = counter('attache_operation_failures_total', 'Requests that failed after all attempts', ['upstream', 'code'])
  const avoided = counter('attache_calls_avoided_total', 'Calls the provider was spared', ['upstream', 'reason'])
  const breakerState = gauge('attache_breaker_state', '1 for the state the breaker is in', ['upstream', 'state'])
  const gateUntil = gauge('attache_gate_until_timestamp_seconds', 'Until when the provider asked us to wait', ['upstream'])
  const inFlight = gauge('attache_in_flight', 'Attempts waiting for their header', ['upstream'])
  const queue = gauge('attache_queue', 'Requests waiting for a volume slot', ['upstream'])
  const tokenRequests = counter('attache_token_requests_total', 'Requests to the token service', ['credential', 'grant', 'reason', 'result'])
  const tokenUses = counter('attache_token_uses_total', 'Attempts that carried a token', ['credential'])
  const tokenReuse = gauge('attache_token_reuse_ratio', 'Share of its lifetime the last replaced token was used for', ['credential'])
  const tokenExpiry = gauge('attache_token_expiry_timestamp_seconds', 'When the held token expires', ['credential'])
  const credentialExpiry = gauge('attache_credential_expiry_timestamp_seconds', 'When the certificate or key expires', ['credential'])
  const cacheRequests = counter('attache_cache_requests_total', 'What the cache did', ['upstream', 'result'])
  const cacheBytes = gauge('attache_cache_bytes', 'Bytes of stored answers', ['upstream'])
  const cacheEntries = gauge('attache_cache_entries', 'Stored answers', ['upstream'])
  const cacheEvictions = counter('attache_cache_evictions_total', 'Answers dropped to make room', ['upstream'])
  const volumeUsed = gauge('attache_volume_used_ratio', 'Share of the agreed volume in use', ['upstream', 'window'])
  const deprecatedCalls = counter('attache_deprecated_calls_total', 'Calls to operations on their way out', ['upstream', 'operation', 'stage'])
  const sunset = gauge('attache_sunset_timestamp_seconds', 'When the operation stops', ['upstream', 'operation'])
  const unknown = counter('attache_unknown_operations_total', 'Requests to operations not agreed', ['upstream'])
  const reloads = counter('attache_config_reloads_total', 'Reloads of the configuration', ['result'])
  gauge('attache_build_info', 'Always 1; the labels tell', ['version', 'node'])(build.version, build.node).set(1)

  function count(event: Event): void {
    switch (event.kind) {
      case 'request': {
        const method = METHODS.has(event.method) ? event.method : 'other'
        requests(event.upstream, event.operation, method, String(event.status), event.source).inc()
        requestDuration(event.upstream, event.source).observe(event.durationMs / 1000)
        overhead(event.upstream).observe(Math.max(0, event.durationMs - event.upstreamMs - event.waitMs - event.tokenMs) / 1000)
        break
      }
      case 'attempt-started':
        inFlight(event.upstream).inc()
        break
      case 'attempt':
        inFlight(event.upstream).dec()
        attempts(event.upstream, event.code, event.result).inc()
        attemptDuration(event.upstream).observe(event.durationMs / 1000)
        break
      case 'retry':
        retries(event.upstream, event.reason).inc()
        break
      case 'operation-failed':
        operationFailures(event.upstream, event.code).inc()
        break
      case 'call-avoided':
        avoided(event.upstream, event.reason).inc()
        break
      case 'breaker':
        for (const state of ['closed', 'open', 'half-open']) breakerState(event.upstream, state).set(state === event.state ? 1 : 0)
        break
      case 'gate':
        gateUntil(event.upstream).set(event.until / 1000)
        break
      case 'queue':
        queue(event.upstream).set(event.length)
        break
      case 'cache':
        cacheRequests(event.upstream, event.result).inc()
        break
      case 'cache-size':
        cacheBytes(event.upstream).set(event.bytes)
        cacheEntries(event.upstream).set(event.entries)
        if (event.evictions > 0) cacheEvictions(event.upstream).inc(event.evictions)
        break
      case 'volume':
        volumeUsed(event.upstream, event.window).set(event.usedRatio)
        break
      case 'token-request':
        tokenRequests(event.credential, event.grant, event.reason, event.result).inc()
        break
      case 'token-use':
        tokenUses(event.credential).inc()
        break
      case 'token-held':
        tokenExpiry(event.credential).set(event.expiresAt / 1000)
        if (event.reuseRatio !== undefined) tokenReuse(event.credential).set(event.reuseRatio)
        break
      case 'credential-expiry':
        credentialExpiry(event.credential).set(event.expiresAt / 1000)
        break
      case 'deprecated-call':
        deprecatedCalls(event.upstream, event.operation, event.stage).inc()
        if (event.sunsetAt !== undefined) sunset(event.upstream, event.operation).set(event.sunsetAt / 1000)
        break
      case 'unknown-operation':
        unknown(event.upstream).inc()
        break
      case 'config-reload':
        reloads(event.result).inc()
        break
      default:
        break
    }
  }

  const expected = new Set<string>()
  function expect(upstream: string): void {
    if (expected.has(upstream)) return
    expected.add(upstream)
    for (const state of ['closed', 'open', 'half-open']) breakerState(upstream, state).set(state === 'closed' ? 1 : 0)
    for (const atRest of [inFlight, queue, cacheBytes, cacheEntries]) atRest(upstream).set(0)
  }

  return { count, expect, text: () => registry.metrics(), contentType: registry.contentType }
}
