import { request } from 'node:http'
import { InvalidArgumentError, Option, type Command } from 'commander'
import { DURATION, type ListenAddress } from '../exchange/options.ts'
import type { Volumes } from '../server/volumes.ts'
import { configCommand, configFile, type ConfigArguments } from './options.ts'
import { printFindings } from './report.ts'

type ReportArguments = ConfigArguments & { readonly format: 'json' | 'markdown' }

// A report takes milliseconds to make; whoever does not answer by then is not there.
const PATIENCE_MS = 10_000

/** `attache report`: what the running sidecar has measured since its start. */
export function addReportCommand(program: Command): void {
  configCommand(program, 'report', 'measured volumes, savings and advice on lifetimes, from the running sidecar')
    .addOption(new Option('--format <format>', 'how to print it').choices(['json', 'markdown']).default('markdown'))
    // the counters begin with the process; a ledger of longer periods is to come
    .option('--period <duration>', 'accepted; the counts are those since the sidecar started', parsePeriod)
    .action(async (args: ReportArguments, command: Command) => {
      process.exitCode = await report(configFile(command, args), args)
    })
}

async function report(file: string, { format, speed }: ReportArguments): Promise<number> {
  const { loadConfig } = await import('../config/load.ts')
  const loaded = loadConfig(file, process.env, { speed, expired: 'warn' })
  if (loaded.kind === 'refused') return printFindings(loaded.findings, loaded.warnings)
  const { admin } = loaded.config
  try {
    const text = await ask(admin.listen, admin.token?.read().reveal())
    process.stdout.write(format === 'json' ? `${text}\n` : markdown(JSON.parse(text) as Volumes))
    return 0
  } catch (error) {
    process.stderr.write(`attache report: ${error instanceof Error ? error.message : String(error)}\n`)
    return 1
  }
}

function parsePeriod(text: string): string {
  if (!DURATION.test(text)) throw new InvalidArgumentError('a duration such as 24h or 30d.')
  return text
}

/** The text of `/api/report` of the sidecar that listens there. */
function ask(address: ListenAddress, token: string | undefined): Promise<string> {
  const place = address.kind === 'unix' ? { socketPath: address.path } : { host: reachable(address.host), port: address.port }
  const headers = { Host: 'localhost', ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }) }
  return new Promise((resolve, reject) => {
    const asking = request({ ...place, path: '/api/report', headers, timeout: PATIENCE_MS }, (answer) => {
      let text = ''
      answer.setEncoding('utf8').on('data', (part: string) => (text += part))
      answer.on('error', reject)
      answer.on('end', () => (answer.statusCode === 200 ? resolve(text) : reject(new Error(`the admin port answers ${answer.statusCode}`))))
    })
    asking.on('timeout', () => asking.destroy(new Error('no answer in time')))
    asking.on('error', (cause) => reject(new Error('no sidecar answers on admin.listen of this configuration; start it with attache run', { cause })))
    asking.end()
  })
}

// an address to listen on, not one to connect to
function reachable(host: string): string {
  return host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host
}

function markdown({ version, from, to, upstreams, tokens }: Volumes): string {
  const lines = ['# Volumes', '', `Measured by Attache ${version} from ${from} to ${to}.`, '']
  lines.push(
    ...table(
      ['upstream', 'agreement', 'requests', 'calls', 'calls/h', 'retries', 'avoided'],
      Object.entries(upstreams).map(([name, one]) => [
        name,
        one.agreement ?? '',
        one.requests.total,
        one.calls.total,
        one.calls.perHour,
        one.calls.retries,
        [one.avoided.total, ...Object.entries(one.avoided.by).map(([reason, count]) => `${reason} ${count}`)].join(', ')
      ])
    )
  )
  lines.push('', '## Lifetimes worth agreeing on', '')
  const advice = Object.entries(upstreams).flatMap(([name, one]) => one.advice.map((each) => ({ name, ...each })))
  lines.push(
    ...table(
      ['upstream', 'operation', 'calls', 'compared', 'same body again', 'suggested ttl', 'calls saved'],
      advice.map((each) => [each.name, each.operation, each.calls, each.judged, each.repeated, each.suggestedTtl ?? 'none', each.wouldHaveSaved])
    )
  )
  lines.push('', '## Tokens', '')
  lines.push(
    ...table(
      ['credential', 'token requests', 'uses'],
      Object.entries(tokens).map(([name, { requests, uses }]) => [name, requests, uses])
    )
  )
  return `${lines.join('\n')}\n`
}

function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string[] {
  const line = (cells: readonly (string | number)[]): string => `| ${cells.map((cell) => String(cell).replaceAll('|', '\\|')).join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)]
}
