/** What the project promises itself, as ratios within one run. */
import type { Row } from './scenarios.ts'

export type Results = Readonly<Record<string, readonly Row[]>>
export type Goal = { readonly text: string; readonly measured: number; readonly met: boolean }

/** Only goals whose both sides were measured. */
export function goals(results: Results): Goal[] {
  const of = (scenario: string, subject: string): number => results[scenario]?.find((row) => row.subject === subject)?.value ?? Number.NaN
  const ratio = (scenario: string, peer: string, factor: number): Goal => {
    const measured = of(scenario, 'attache') / of(scenario, peer)
    return { text: `${scenario}: at least ${factor} × ${peer}`, measured, met: measured >= factor }
  }
  const below = (text: string, measured: number, limit: number): Goal => ({ text, measured, met: measured <= limit })
  const entries = results['many entries']?.[0]
  return [
    ratio('pass-through', 'http-proxy', 1.3),
    ratio('pass-through', 'caddy', 1.2),
    ratio('pass-through', 'bare-node', 0.65),
    ratio('cache hits', 'nginx-cache', 0.5),
    ratio('cache hits', 'undici-cache', 5),
    atLeast('many entries: as fast as one', (entries?.value ?? Number.NaN) / of('cache hits', 'attache'), 0.9),
    ratio('large answers', 'bare-node', 0.8),
    below('latency: p50 at most 0.3 ms added', of('latency', 'attache p50') - of('latency', 'origin p50'), 0.3),
    below('latency: p99 at most 2 ms added', of('latency', 'attache p99') - of('latency', 'origin p99'), 2),
    below('idle: ready within 600 ms', of('idle', 'ready after'), 600),
    below('idle: at most 90 MiB resident', of('idle', 'resident'), 90),
    below('idle: at most 0.2 % processor', of('idle', 'processor'), 0.2),
    atLeast('many upstreams: 200 as fast as 1', of('many upstreams', 'attache, 200 upstreams') / of('many upstreams', 'attache, 1 upstream'), 0.95)
  ].filter((goal) => !Number.isNaN(goal.measured))
}

function atLeast(text: string, measured: number, factor: number): Goal {
  return { text, measured, met: measured >= factor }
}
