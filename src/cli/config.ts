import type { Command } from 'commander'
import { configCommand, configFile, type ConfigArguments } from './options.ts'
import { printFindings } from './report.ts'

/** `attache config`: the effective config as YAML, each value with where it comes from; secrets as references. */
export function addConfigCommand(program: Command): void {
  configCommand(program, 'config', 'print the effective configuration, each value with where it comes from; secrets masked').action(
    async (args: ConfigArguments, command: Command) => {
      const file = configFile(command, args)
      const { loadConfig } = await import('../config/load.ts')
      const { showConfig } = await import('../config/show.ts')
      const result = loadConfig(file, process.env, { speed: args.speed })
      if (result.kind === 'refused') process.exitCode = printFindings(result.findings, result.warnings)
      else process.stdout.write(showConfig(result.origins, file))
    }
  )
}
