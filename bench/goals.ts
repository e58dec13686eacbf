/** What the project promises itself, as ratios within one run. */
import type { Row } from './scenarios.ts'

export type Results = Readonly<Record<string, readonly Row[]>>
export type Goal = { readonly text: string; readonly measured: number; readonly met: boolean }

/** Only goals whose both sides were measured; wrong answers never meet one. */
export function goals(results: Results): Goal[] {
  const of = (scenario: string, subject: string): Measured => {
    const row = results[scenario]?.find((one) => one.subject === subject)
    return row === undefined || row.note?.startsWith('missing') === true ? undefined : { value: row.value, right: row.wrong === 0 }
  }
  const judge = (text: string, sides: readonly Measured[], compute: (...values: number[]) => number, met: (measured: number) => boolean): Goal[] => {
    const known = sides.filter((side) => side !== undefined)
    if (known.length < sides.length) return []
    const measured = compute(...known.map((side) => side.value))
    return [{ text, measured, met: met(measured) && known.every((side) => side.right) }]
  }
  const ratio = (scenario: string, peer: string, factor: number): Goal[] =>
    judge(`${scenario}: at least ${factor} × ${peer}`, [of(scenario, 'attache'), of(scenario, peer)], divide, (measured) => measured >= factor)
  const added = (percentile: string, limitMs: number): Goal[] =>
    judge(
      `latency: ${percentile} at most ${limitMs} ms added`,
      [of('latency', `attache ${percentile}`), of('latency', `origin ${percentile}`)],
      subtract,
      (measured) => measured <= limitMs
    )
  const atMost = (scenario: string, subject: string, text: string, limit: number): Goal[] =>
    judge(`${scenario}: ${text}`, [of(scenario, subject)], same, (measured) => measured <= limit)
  return [
    ratio('pass-through', 'http-proxy', 1.3),
    ratio('pass-through', 'caddy', 1.2),
    ratio('pass-through', 'bare-node', 0.65),
    ratio('cache hits', 'nginx-cache', 0.5),
    ratio('cache hits', 'undici-cache', 5),
    judge(
      'many entries: 100,000 at least 0.9 × one',
      [of('many entries', 'attache, 100000 entries'), of('many entries', 'attache, 1 entry')],
      divide,
      (measured) => measured >= 0.9
    ),
    ratio('large answers', 'bare-node', 0.8),
    added('p50', 0.3),
    added('p99', 2),
    atMost('idle', 'ready after', 'ready within 600 ms', 600),
    atMost('idle', 'resident', 'at most 90 MiB resident', 90),
    atMost('idle', 'processor', 'at most 0.2 % processor', 0.2),
    atMost('idle', 'resident under load', 'at most 160 MiB resident under load', 160),
    judge(
      'many upstreams: 200 at least 0.95 × one',
      [of('many upstreams', 'attache, 200 upstreams'), of('many upstreams', 'attache, 1 upstream')],
      divide,
      (measured) => measured >= 0.95
    ),
    judge('storm: all of 5,000 connections served', [of('storm', 'connections served')], same, (measured) => measured === 5000),
    atMost('transfer', 'memory added by 1 GiB down', 'at most 64 MiB added by 1 GiB down', 64),
    atMost('transfer', 'memory added by 1 GiB up', 'at most 64 MiB added by 1 GiB up', 64),
    atMost('slow readers', 'memory added', 'at most 200 MiB added by 1,000', 200),
    judge('overload: 2 × at least 0.8 × capacity', [of('overload', 'at 2 × capacity'), of('overload', 'at capacity')], divide, (measured) => measured >= 0.8)
  ].flat()
}

type Measured = { readonly value: number; readonly right: boolean } | undefined

function divide(a = Number.NaN, b = Number.NaN): number {
  return a / b
}

function subtract(a = Number.NaN, b = Number.NaN): number {
  return a - b
}

function same(a = Number.NaN): number {
  return a
}
