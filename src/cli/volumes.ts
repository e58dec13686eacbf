import { request } from 'node:http'
import { Option, type Command } from 'commander'
import type { ListenAddress } from '../exchange/options.ts'
import type { Volumes } from '../server/volumes.ts'
import { configCommand, configFile, type ConfigArguments } from './options.ts'
import { printFindings } from './report.ts'

type ReportArguments = ConfigArguments & { readonly format: 'json' | 'markdown'; readonly period?: string }
/** How far back to look, as written and in milliseconds. */
type Period = { readonly text: string; readonly ms: number }

// A report takes milliseconds to make; whoever does not answer by then is not there.
const PATIENCE_MS = 10_000

/** `attache report`: what the running sidecar has measured since its start. */
export function addReportCommand(program: Command): void {
  configCommand(program, 'report', 'measured volumes, savings and advice on lifetimes, from the running sidecar')
    .addOption(new Option('--format <format>', 'how to print it').choices(['json', 'markdown']).default('markdown'))
    .option('--period <duration>', 'how far back, such as 30d; not less than since the start, for which one sum is kept')
    .action(async (args: ReportArguments, command: Command) => {
      const period = await periodOf(command, args)
      process.exitCode = await report(configFile(command, args), args, period)
    })
}

async function periodOf(command: Command, { period: text }: ReportArguments): Promise<Period | undefined> {
  if (text === undefined) return undefined
  const { parseDuration } = await import('../config/units.ts')
  const ms = parseDuration(text)
  return ms === undefined ? command.error(`error: --period takes a duration such as 12h or 30d, not ${JSON.stringify(text)}`) : { text, ms }
}

async function report(file: string, { format, speed }: ReportArguments, period: Period | undefined): Promise<number> {
  const { loadConfig } = await import('../config/load.ts')
  const loaded = loadConfig(file, process.env, { speed, expired: 'warn' })
  if (loaded.kind === 'refused') return printFindings(loaded.findings, loaded.warnings)
  const { admin } = loaded.config
  try {
    const text = await ask(admin.listen, admin.token?.read().reveal())
    const measured = JSON.parse(text) as Volumes
    // whatever was counted lies within a period that began before the counting did; of a shorter one nothing is known
    if (period !== undefined && period.ms < lengthMs(measured))
      throw new Error(`what is counted is counted since the start (${measured.from}): there is no report for the last ${period.text} alone`)
    process.stdout.write(format === 'json' ? `${text}\n` : markdown(measured, period))
    return 0
  } catch (error) {
    process.stderr.write(`attache report: ${error instanceof Error ? error.message : String(error)}\n`)
    return 1
  }
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

/** In the time the sidecar lives in. */
function lengthMs({ from, to, speed }: Volumes): number {
  return (Date.parse(to) - Date.parse(from)) * speed
}

function markdown({ version, from, to, upstreams, tokens }: Volumes, period: Period | undefined): string {
  const rest = period === undefined ? '' : ` Of the last ${period.text} nothing else is known: counting begins with the process.`
  const lines = ['# Volumes', '', `Measured by Attache ${version} from ${from} to ${to}.${rest}`, '']
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
