import { formatDuration } from '../config/units.ts'
import type { Advice } from '../policies/cache/advisor.ts'
import type { Upstream } from './upstreams.ts'

/** What `/api/report` says of one upstream; durations as in the config, counts since the start of the process. */
export type UpstreamVolumes = {
  readonly baseUrl: string
  readonly agreement: string | null
  /** What the app asked, and where the answers came from. */
  readonly requests: Counts
  /** What the provider saw, by result; `perHour` is the mean. */
  readonly calls: Counts & { readonly perHour: number; readonly retries: number }
  /** Calls the provider was spared, by reason. */
  readonly avoided: Counts
  /** Share of each agreed window in use now. */
  readonly volume: Readonly<Record<string, number>>
  readonly cache: { readonly bytes: number; readonly entries: number }
  /** Which lifetimes would be worth agreeing on, measured since the configuration was loaded. */
  readonly advice: readonly OperationAdvice[]
}

export type Counts = { readonly total: number; readonly by: Readonly<Record<string, number>> }

export type OperationAdvice = Omit<Advice, 'trials' | 'suggested'> & {
  readonly suggestedTtl: string | null
  /** Calls the suggested lifetime would have saved. */
  readonly wouldHaveSaved: number
  readonly trials: readonly { readonly ttl: string; readonly saved: number; readonly outdated: number }[]
}

export type Volumes = {
  readonly version: string
  readonly from: string
  readonly to: string
  readonly speed: number
  readonly upstreams: Readonly<Record<string, UpstreamVolumes>>
  readonly tokens: Readonly<Record<string, { readonly requests: number; readonly uses: number }>>
}

export type VolumesInput = {
  readonly version: string
  readonly speed: number
  /** Epoch milliseconds of wall time. */
  readonly startedAt: number
  readonly now: number
  readonly upstreams: readonly Upstream[]
  readonly credentials: readonly string[]
  /** The text of `/metrics`: whatever is said here can be read there too. */
  readonly metrics: string
}

const HOUR_MS = 3_600_000

/** What was measured, for the provider and for whoever sets lifetimes. */
export function volumes(input: VolumesInput): Volumes {
  const samples = samplesOf(input.metrics)
  const hours = ((input.now - input.startedAt) * input.speed) / HOUR_MS

  function counts(metric: string, owner: string, label: string): Counts {
    const by: Record<string, number> = {}
    for (const { name, labels, value } of samples) {
      if (name !== metric || labels.get('upstream') !== owner) continue
      const key = labels.get(label) ?? ''
      by[key] = (by[key] ?? 0) + value
    }
    return { total: Object.values(by).reduce((sum, each) => sum + each, 0), by }
  }
  function total(metric: string, credential: string): number {
    return samples.filter(({ name, labels }) => name === metric && labels.get('credential') === credential).reduce((sum, { value }) => sum + value, 0)
  }
  function upstreamVolumes({ name, options, pipeline }: Upstream): UpstreamVolumes {
    const calls = counts('attache_attempts_total', name, 'result')
    return {
      baseUrl: options.baseUrl,
      agreement: options.agreement ?? null,
      requests: counts('attache_requests_total', name, 'source'),
      calls: { ...calls, perHour: hours > 0 ? Math.round((calls.total / hours) * 10) / 10 : 0, retries: counts('attache_retries_total', name, 'reason').total },
      avoided: counts('attache_calls_avoided_total', name, 'reason'),
      volume: counts('attache_volume_used_ratio', name, 'window').by,
      cache: { bytes: pipeline.cache.bytes, entries: pipeline.cache.entries },
      advice: pipeline.cache.advice().map(operationAdvice)
    }
  }

  return {
    version: input.version,
    from: new Date(input.startedAt).toISOString(),
    to: new Date(input.now).toISOString(),
    speed: input.speed,
    upstreams: Object.fromEntries(input.upstreams.map((upstream) => [upstream.name, upstreamVolumes(upstream)])),
    tokens: Object.fromEntries(
      input.credentials.map((name) => [name, { requests: total('attache_token_requests_total', name), uses: total('attache_token_uses_total', name) }])
    )
  }
}

function operationAdvice({ trials, suggested, ...measured }: Advice): OperationAdvice {
  return {
    ...measured,
    suggestedTtl: suggested === undefined ? null : formatDuration(suggested.ttlMs),
    wouldHaveSaved: suggested?.saved ?? 0,
    trials: trials.map(({ ttlMs, saved, outdated }) => ({ ttl: formatDuration(ttlMs), saved, outdated }))
  }
}

type Sample = { readonly name: string; readonly labels: ReadonlyMap<string, string>; readonly value: number }

/** Reads the counters and gauges of the exposition format; label values stay as they are escaped there. */
function samplesOf(text: string): Sample[] {
  return text.split('\n').flatMap((line) => {
    const [, name, labels = '', value] = /^(attache_\w+)\{(.*)\} (\S+)$/.exec(line) ?? []
    if (name === undefined) return []
    const pairs = [...labels.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, label = '', worth = '']) => [label, worth] as const)
    return [{ name, labels: new Map(pairs), value: Number(value) }]
  })
}
