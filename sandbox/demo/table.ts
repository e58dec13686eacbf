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

type Row = { readonly name: string; value(account: Account): string | number }

/** Facts down, providers across; plain text. */
export function table(accounts: readonly Account[]): string {
  const rows: Row[] = [
    { name: 'the app asked', value: ({ tally }) => tally.asked },
    ...byStatus('  and heard', accounts, ({ tally }) => tally.answers),
    { name: 'the provider saw', value: ({ counts }) => counts.apiCalls },
    ...byStatus('  and answered', accounts, ({ counts }) => ({ ...counts.answers, ...(counts.unanswered === 0 ? {} : { nothing: counts.unanswered }) })),
    { name: 'tokens requested', value: ({ counts }) => counts.tokenRequests },
    { name: 'retries', value: ({ metric }) => metric('attache_retries_total') },
    { name: 'waited, all callers together', value: ({ tally }) => `${Math.round(tally.waitedMs / 1000)} s` },
    { name: 'answered from the cache', value: ({ metric }) => bySource(metric, 'cache') + bySource(metric, 'stale') },
    { name: 'shared another caller’s answer', value: ({ metric }) => bySource(metric, 'collapsed') },
    { name: 'answered by the sidecar itself', value: ({ metric }) => bySource(metric, 'local') },
    { name: 'violations', value: ({ violations }) => violations.length }
  ]
  const names = Math.max(...rows.map(({ name }) => name.length))
  const line = (name: string, cells: readonly string[]): string =>
    [name.padEnd(names), ...cells.map((cell, column) => cell.padStart(accounts[column]?.title.length ?? 0))].join('   ')
  return [
    line(
      '',
      accounts.map(({ title }) => title)
    ),
    line(
      '-'.repeat(names),
      accounts.map(({ title }) => '-'.repeat(title.length))
    ),
    ...rows.map(({ name, value }) =>
      line(
        name,
        accounts.map((account) => String(value(account)))
      )
    )
  ].join('\n')
}

/** One row for each status that any of them saw. */
function byStatus(name: string, accounts: readonly Account[], answers: (account: Account) => Readonly<Record<string, number>>): Row[] {
  const statuses = [...new Set(accounts.flatMap((account) => Object.keys(answers(account))))].toSorted()
  return statuses.map((status) => ({ name: `${name} ${status}`, value: (account) => answers(account)[status] ?? '' }))
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
