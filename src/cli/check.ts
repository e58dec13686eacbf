import type { Command } from 'commander'
import { configCommand, configFile, type ConfigArguments } from './options.ts'
import { printEnvironment, printFindings } from './report.ts'

/** `attache check`: everything wrong with the config, its secrets, keys and certificates at once; sends nothing. */
export function addCheckCommand(program: Command): void {
  configCommand(program, 'check', 'validate configuration, agreement bounds, secrets, keys and certificates; sends nothing').action(
    async (args: ConfigArguments, command: Command) => {
      const file = configFile(command, args)
      process.exitCode = await check(file, args.speed)
    }
  )
}

async function check(file: string, speed: number): Promise<number> {
  const { environmentFindings } = await import('../config/environment.ts')
  const { loadConfig } = await import('../config/load.ts')
  const surroundings = printEnvironment(environmentFindings(process.env, process.execArgv))
  const result = loadConfig(file, process.env, { speed })
  const findings = result.kind === 'refused' ? result.findings : []
  const code = Math.max(surroundings, printFindings(findings, result.warnings))
  const count = (number: number, noun: string): string => `${number} ${noun}${number === 1 ? '' : 's'}`
  if (result.kind === 'loaded') {
    const { upstreams, credentials } = result.config
    process.stdout.write(
      `${file}: ${code === 0 ? 'ok' : 'refused'}, ${count(Object.keys(upstreams).length, 'upstream')}, ${count(Object.keys(credentials).length, 'credential')}, ${count(result.warnings.length, 'warning')}\n`
    )
  } else process.stdout.write(`${file}: refused, ${count(findings.length, 'problem')}, ${count(result.warnings.length, 'warning')}\n`)
  return code
}
