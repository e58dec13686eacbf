/**
 * What the outside relies on, written out. A change here is a change of the contract: it belongs into the README's
 * "Contract changes" and the changelog.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { loadConfig, publishedSchema } from '../../src/config/load.ts'
import { systemClock } from '../../src/exchange/clock.ts'
import { PROBLEMS } from '../../src/exchange/problem.ts'
import { PIPELINE, pipeline } from '../../src/pipeline.ts'
import { memoryStore } from '../../src/state/memory.ts'
import { metrics } from '../../src/telemetry/metrics.ts'
import { ROOT, sources } from './sources.ts'

const CODES: Readonly<Record<string, number>> = {
  'unknown-upstream': 404,
  'unknown-operation': 404,
  'host-not-allowed': 421,
  'origin-not-allowed': 403,
  'client-not-allowed': 403,
  'bad-request': 400,
  'body-too-large': 413,
  'headers-too-large': 431,
  'volume-exhausted': 429,
  'spend-exhausted': 429,
  'destination-not-allowed': 403,
  sunset: 410,
  'upstream-wait': 503,
  'breaker-open': 503,
  'token-unavailable': 503,
  'credential-rejected': 503,
  'upstream-timeout': 504,
  'upstream-unreachable': 502,
  'upstream-protocol': 502,
  'outcome-unknown': 502,
  draining: 503,
  'only-if-cached': 504,
  internal: 500
}

const METRICS: Readonly<Record<string, readonly string[]>> = {
  attache_requests_total: ['upstream', 'operation', 'method', 'code', 'source'],
  attache_request_duration_seconds: ['upstream', 'source'],
  attache_overhead_seconds: ['upstream'],
  attache_attempts_total: ['upstream', 'code', 'result'],
  attache_attempt_duration_seconds: ['upstream'],
  attache_retries_total: ['upstream', 'reason'],
  attache_operation_failures_total: ['upstream', 'code'],
  attache_calls_avoided_total: ['upstream', 'reason'],
  attache_breaker_state: ['upstream', 'state'],
  attache_gate_until_timestamp_seconds: ['upstream'],
  attache_in_flight: ['upstream'],
  attache_queue: ['upstream'],
  attache_token_requests_total: ['credential', 'grant', 'reason', 'result'],
  attache_token_uses_total: ['credential'],
  attache_token_reuse_ratio: ['credential'],
  attache_token_expiry_timestamp_seconds: ['credential'],
  attache_credential_expiry_timestamp_seconds: ['credential'],
  attache_cache_requests_total: ['upstream', 'result'],
  attache_cache_bytes: ['upstream'],
  attache_cache_entries: ['upstream'],
  attache_cache_evictions_total: ['upstream'],
  attache_volume_used_ratio: ['upstream', 'window'],
  attache_deprecated_calls_total: ['upstream', 'operation', 'stage'],
  attache_sunset_timestamp_seconds: ['upstream', 'operation'],
  attache_unknown_operations_total: ['upstream'],
  attache_config_reloads_total: ['result'],
  attache_build_info: ['version', 'node']
}

/** Agreed names whose capability has not arrived; a name moves up as soon as it exists. */
const METRICS_TO_COME: readonly string[] = ['attache_spend_total', 'attache_clause_status']

const ORDER = [
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
]

const CONFIG_KEYS: readonly string[] = ['admin', 'allowHosts', 'allowRemote', 'clients', 'credentials', 'listen', 'log', 'state', 'upstreams', 'version']

const UPSTREAM_KEYS: readonly string[] = [
  'agreement',
  'async',
  'baseUrl',
  'breaker',
  'cache',
  'credential',
  'headers',
  'leases',
  'lifecycle',
  'listen',
  'operations',
  'pass',
  'retry',
  'spend',
  'timeout',
  'volume',
  'waitDefault',
  'waivers'
]

describe('problem codes', () => {
  test('are those agreed, with their status', () => {
    expect(Object.fromEntries(Object.entries(PROBLEMS).map(([code, { status }]) => [code, status]))).toEqual(CODES)
  })

  test('are all raised somewhere, or belong to a capability that has not arrived', () => {
    const raised = sources('src')
      .filter((source) => source.path !== 'src/exchange/problem.ts')
      .map((source) => source.text)
      .join('\n')
    const silent = Object.keys(PROBLEMS).filter((code) => !raised.includes(`'${code}'`))
    const toCome = ['spend-exhausted', 'destination-not-allowed', 'sunset']
    expect(silent.filter((code) => !toCome.includes(code))).toEqual([])
  })
})

describe('metrics', () => {
  test('have the names agreed', async () => {
    const text = await metrics({ version: '0', node: '0' }).text()
    const names = [...text.matchAll(/^# TYPE (attache_\w+)/gm)].map((match) => match[1] ?? '')
    expect(names.toSorted()).toEqual(Object.keys(METRICS).toSorted())
    expect(names.filter((name) => METRICS_TO_COME.includes(name))).toEqual([])
  })

  test('have the labels agreed', () => {
    const text = readFileSync(join(ROOT, 'src/telemetry/metrics.ts'), 'utf8')
    const declared = [...text.matchAll(/\b(?:counter|gauge|histogram)\(\s*'(attache_\w+)',\s*'[^']*',\s*\[([^\]]*)\]/g)]
    const labels = declared.map((match) => [match[1], [...(match[2] ?? '').matchAll(/'(\w+)'/g)].map((label) => label[1])])
    expect(Object.fromEntries(labels)).toEqual(METRICS)
  })
})

describe('configuration', () => {
  test('the published schema is what the rooms describe', () => {
    const file = join(ROOT, 'config/attache.schema.json')
    expect(existsSync(file)).toBe(true)
    expect(JSON.parse(readFileSync(file, 'utf8')), 'npm run schema').toEqual(JSON.parse(JSON.stringify(publishedSchema)))
  })

  test('has every key agreed', () => {
    const written: {
      properties: Record<string, { additionalProperties?: { properties?: object }; patternProperties?: Record<string, { properties?: object }> }>
    } = JSON.parse(JSON.stringify(publishedSchema))
    const upstream = written.properties['upstreams']
    const described = upstream?.additionalProperties?.properties ?? Object.values(upstream?.patternProperties ?? {})[0]?.properties ?? {}
    expect(Object.keys(written.properties)).toEqual(expect.arrayContaining([...CONFIG_KEYS]))
    expect(Object.keys(described)).toEqual(expect.arrayContaining([...UPSTREAM_KEYS]))
  })
})

describe('the pipeline', () => {
  test('lists its policies in the order agreed', () => {
    expect([...PIPELINE]).toEqual(ORDER)
  })

  test('is composed in the order it lists', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'attache-test-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    const file = join(folder, 'attache.yaml')
    writeFileSync(file, 'version: 1\nupstreams: { up: { baseUrl: http://127.0.0.1:1/, credential: none } }\n')
    const loaded = loadConfig(file, {})
    if (loaded.kind !== 'loaded') throw new Error(JSON.stringify(loaded.findings))
    const options = loaded.config.upstreams['up']
    if (options === undefined) throw new Error('no such upstream')
    const clock = systemClock()
    const store = memoryStore({ clock })
    onTestFinished(() => store.close())
    const composed = pipeline(options, {
      upstream: 'up',
      clock,
      random: () => 0.5,
      report: () => undefined,
      store,
      sealKey: Buffer.alloc(32),
      credentials: { get: () => undefined, all: () => [], close: async () => undefined },
      transport: { send: async () => ({ status: 204, fields: [], body: { kind: 'none' }, source: 'upstream' }), close: async () => undefined },
      operations: async function operations(request, next) {
        return next(request)
      }
    })
    expect(composed.policies).toEqual(ORDER)
  })
})
