/** The table a person reads and the JSON a script reads. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus, release, totalmem, type } from 'node:os'
import { join } from 'node:path'
import { goals, type Results } from './goals.ts'
import { WRK } from './load.ts'
import { PINNED, installed } from './process.ts'
import type { Row } from './scenarios.ts'

export type Machine = {
  readonly processor: string
  readonly cores: number
  readonly memoryGiB: number
  readonly system: string
  readonly node: string
  readonly pinned: boolean
  readonly load: string
  readonly versions: Readonly<Record<string, string>>
}

const ROOT = join(import.meta.dirname, '..')

export function machine(): Machine {
  const packages = ['fastify', '@fastify/http-proxy', 'undici', 'lru-cache', 'opossum', 'pino', 'prom-client']
  return {
    processor: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    system: `${type()} ${release()}`,
    node: process.version,
    pinned: PINNED,
    load: WRK ? 'wrk' : 'bundled generator (wrk is not installed)',
    versions: {
      ...Object.fromEntries(packages.map((name) => [name, packageVersion(name)])),
      ...commandVersion('nginx', ['-v'], /nginx\/([\d.]+)/),
      ...commandVersion('haproxy', ['-v'], /version ([\d.]+)/),
      ...commandVersion('caddy', ['version'], /^v?([\d.]+)/)
    }
  }
}

export function table(results: Results, on: Machine): string {
  const lines = [
    `machine   ${on.processor}, ${on.cores} cores, ${on.memoryGiB} GiB, ${on.system}`,
    `node      ${on.node}`,
    `load      ${on.load}, ${on.pinned ? 'proxy on core 0, load and origin on core 1' : 'nothing pinned to a core'}`,
    `versions  ${Object.entries(on.versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(', ')}`
  ]
  for (const [scenario, rows] of Object.entries(results)) {
    const reference = rows.find((row) => row.subject === 'attache' && row.unit === 'req/s')
    lines.push('', `${scenario}`)
    for (const row of rows) {
      const ratio = reference === undefined || row === reference || Number.isNaN(row.value) ? '' : `attache is ${ratios(reference, row)}`
      const value = Number.isNaN(row.value)
        ? ''
        : `${row.value >= 100 || Number.isInteger(row.value) ? Math.round(row.value).toLocaleString('en') : row.value.toFixed(2)} ${row.unit}`
      const wrong = row.wrong > 0 ? `${row.wrong} WRONG ANSWERS` : ''
      const cost = row.microsPerRequest === undefined ? '' : `${row.microsPerRequest.toFixed(1)} µs`
      lines.push(`  ${row.subject.padEnd(26)} ${value.padStart(16)} ${cost.padStart(10)}   ${[ratio.padEnd(36), row.note ?? '', wrong].join('  ')}`.trimEnd())
    }
  }
  const reached = goals(results)
  if (reached.length > 0) lines.push('', 'goals')
  for (const goal of reached) lines.push(`  ${goal.met ? 'met  ' : 'SHORT'}  ${goal.text.padEnd(50)} ${goal.measured.toFixed(2)}`)
  return lines.join('\n')
}

/** Best round against best round, as goals are judged; and the middle one of the ratios within each round. */
function ratios(reference: Row, row: Row): string {
  const best = `${(reference.value / row.value).toFixed(2)} ×`
  const each = (reference.rounds ?? []).map((perSecond, at) => perSecond / (row.rounds?.[at] ?? Number.NaN)).toSorted((a, b) => a - b)
  const middle = each[Math.floor(each.length / 2)]
  return middle === undefined || Number.isNaN(middle) ? best : `${best}, by round ${middle.toFixed(2)} ×`
}

/** Writes `bench/results/TIME.json` and gives its path. */
export function writeResults(results: Results, on: Machine): string {
  const folder = join(import.meta.dirname, 'results')
  mkdirSync(folder, { recursive: true })
  const file = join(folder, `${new Date().toISOString().replaceAll(/[:.]/g, '-')}.json`)
  writeFileSync(file, `${JSON.stringify({ machine: on, results, goals: goals(results) }, null, 2)}\n`)
  return file
}

function packageVersion(name: string): string {
  const manifest: { version: string } = JSON.parse(readFileSync(join(ROOT, 'node_modules', name, 'package.json'), 'utf8'))
  return manifest.version
}

function commandVersion(command: string, args: string[], pattern: RegExp): Record<string, string> {
  if (!installed(command)) return { [command]: 'missing' }
  const printed = execFileSync('sh', ['-c', `${command} ${args.join(' ')} 2>&1`], { encoding: 'utf8' })
  return { [command]: pattern.exec(printed)?.[1] ?? 'unknown' }
}
