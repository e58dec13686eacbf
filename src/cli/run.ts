import type { Command } from 'commander'
import type { LoadResult } from '../config/load.ts'
import { configCommand, configFile, type ConfigArguments } from './options.ts'
import { printEnvironment, printFindings } from './report.ts'
import { smallYoungGeneration } from './young-generation.ts'

/** `attache run`, the default: the sidecar, until a signal ends it. */
export function addRunCommand(program: Command): void {
  configCommand(program, 'run', 'start the sidecar (the default)', { isDefault: true })
    .addHelpText('after', '\nSIGTERM and SIGINT drain, a second one ends at once; SIGHUP loads the configuration again.')
    .action(async (args: ConfigArguments, command: Command) => {
      const file = configFile(command, args)
      process.exitCode = await run(file, args.speed)
    })
}

async function run(file: string, speed: number): Promise<number> {
  const youngGeneration = smallYoungGeneration()
  const { environmentFindings } = await import('../config/environment.ts')
  const hazards = environmentFindings(process.env, process.execArgv)
  if (hazards.length > 0) return printEnvironment(hazards)

  const { loadConfig } = await import('../config/load.ts')
  const load = (): LoadResult => loadConfig(file, process.env, { speed, warn: printSecretWarning, expired: 'warn' })
  const first = load()
  if (first.kind === 'refused') return printFindings(first.findings, first.warnings)
  // node opens a debugger on SIGUSR1 unless somebody else listens
  process.on('SIGUSR1', ignore)
  process.on('uncaughtException', crash)

  const { startSidecar } = await import('../server/sidecar.ts')
  let isFirst = true
  try {
    const starting = startSidecar(
      () => {
        if (!isFirst) return load()
        isFirst = false
        return first
      },
      { speed }
    )
    void starting.then(youngGeneration.grow, ignore)
    return await untilStopped(starting)
  } catch (error) {
    process.stderr.write(`attache: cannot start: ${error instanceof Error ? error.message : String(error)}\n`)
    return 1
  }
}

type Running = { reload(): Promise<void>; drain(): Promise<number> }

/**
 * Resolves with the exit code once drained; rejects where the start fails. Signals that come while it starts are carried
 * out after that. A second SIGTERM or SIGINT ends the process at once.
 */
async function untilStopped(starting: Promise<Running>): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  let isStopping = false
  function stop(): void {
    if (isStopping) process.exit(1)
    isStopping = true
    starting.then((sidecar) => sidecar.drain().then(finish, reject), ignore)
  }
  function finish(code: number): void {
    resolve(code)
    process.exit(code)
  }
  function reload(): void {
    if (isStopping) return
    starting
      .then((sidecar) => sidecar.reload())
      .catch((error: unknown) => process.stderr.write(`attache: reload failed: ${error instanceof Error ? error.message : String(error)}\n`))
  }
  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
  process.on('SIGHUP', reload)
  await starting
  return promise
}

function printSecretWarning(reference: string, message: string): void {
  process.stderr.write(`warning: ${reference} ${message}\n`)
}

/** Ends the process: after a fault nobody foresaw no state can be trusted. Messages may quote what they stumbled over, frames do not. */
function crash(error: unknown): void {
  const name = error instanceof Error ? error.name : typeof error
  const frames = error instanceof Error ? (error.stack ?? '').split('\n').filter((line) => /^\s+at /.test(line)) : []
  process.stderr.write(`attache: internal fault (${name}), stopping\n${frames.join('\n')}\n`)
  process.exit(1)
}

function ignore(): void {}
