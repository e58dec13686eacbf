import type { Counts, Violation } from '../ledger.ts'
import type { Tally } from './app.ts'

/** Everything known about one provider after the story, from three sides: the app, the sidecar, the provider. */
export type Account = {
  readonly title: string
  readonly tally: Tally
  readonly counts: Counts
  readonly violations: readonly Violation[]
  /** Sum of a sidecar metric over the series with these labels. */
  metric(name: string, labels?: Readonly<Record<string, string>>): number
}

type Row = { readonly name: string; value(account: Account): string }

const ROWS: readonly Row[] = [
  { name: 'the app asked', value: ({ tally }) => String(tally.asked) },
  { name: '  and heard', value: ({ tally }) => answers(tally.answers) },
  { name: 'the provider saw', value: ({ counts }) => String(counts.apiCalls) },
  { name: '  and answered', value: ({ counts }) => answers(counts.answers, counts.unanswered) },
  { name: 'tokens requested', value: ({ counts }) => String(counts.tokenRequests) },
  { name: 'retries', value: ({ metric }) => String(metric('attache_retries_total')) },
  { name: 'time the app was made to wait', value: ({ tally }) => `${Math.round(tally.waitedMs / 1000)} s` },
  { name: 'answered from the cache', value: ({ metric }) => String(bySource(metric, 'cache') + bySource(metric, 'stale')) },
  { name: 'shared another caller’s answer', value: ({ metric }) => String(bySource(metric, 'collapsed')) },
  { name: 'answered by the sidecar itself', value: ({ metric }) => String(bySource(metric, 'local')) },
  { name: 'violations', value: ({ violations }) => String(violations.length) }
]

/** Facts down, providers across; plain text. */
export function table(accounts: readonly Account[]): string {
  const rows = [['', ...accounts.map(({ title }) => title)], ...ROWS.map(({ name, value }) => [name, ...accounts.map((account) => value(account))])]
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? []
  const lines = rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('   ')
      .trimEnd()
  )
  const rule = widths.map((width) => '-'.repeat(width)).join('   ')
  return [lines[0], rule, ...lines.slice(1)].join('\n')
}

/** What the three sides disagree about, or what should not have been; empty when all is as promised. */
export function disagreements(account: Account): string[] {
  const { title, counts, violations, metric } = account
  const broken = [...Map.groupBy(violations, ({ rule }) => rule).values()]
  const found = broken.map(
    (each) => `${title}: broke ${each[0]?.rule} (${each[0]?.severity}) ${each.length === 1 ? '' : `${each.length} times, first `}by: ${each[0]?.detail}`
  )
  if (counts.tokenRequests !== 1) found.push(`${title}: ${counts.tokenRequests} token requests instead of 1`)
  const attempts = metric('attache_attempts_total')
  if (attempts !== counts.apiCalls) found.push(`${title}: the sidecar counted ${attempts} calls, the provider ${counts.apiCalls}`)
  return found
}

function bySource(metric: Account['metric'], source: string): number {
  return metric('attache_requests_total', { source })
}

function answers(statuses: Readonly<Record<string, number>>, unanswered = 0): string {
  const parts = Object.entries(statuses).map(([status, count]) => `${count} × ${status}`)
  return [...parts, ...(unanswered === 0 ? [] : [`${unanswered} × nothing`])].join(', ')
}

/** Reads a page of the exposition format; gives the sum over the series with these labels. */
export function readMetrics(page: string): (name: string, labels?: Readonly<Record<string, string>>) => number {
  const lines = page.split('\n')
  return function metric(name, labels = {}) {
    const wanted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`)
    return lines
      .filter((line) => (line.startsWith(`${name}{`) || line.startsWith(`${name} `)) && wanted.every((pair) => line.includes(pair)))
      .reduce((total, line) => total + Number(line.slice(line.lastIndexOf(' ') + 1)), 0)
  }
}
