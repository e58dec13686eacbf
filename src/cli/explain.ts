import { Command } from 'commander'
import { explain } from '../config/explain.ts'
import { loadConfig } from '../config/load.ts'
import { configCommand, configFile, type ConfigArguments } from './options.ts'
import { printFindings } from './report.ts'

/** `attache explain METHOD PATH`: which upstream, operation, policies, credential and cache key would serve a request; sends nothing. */
export function addExplainCommand(program: Command): void {
  configCommand(program, 'explain', 'say which upstream, operation, policies, credential and cache key would serve a request; sends nothing')
    .argument('<method>', 'request method')
    .argument('<path>', 'path as the app would ask for it, e.g. /finfo/v1/articles/7')
    .action((method: string, path: string, args: ConfigArguments, command: Command) => {
      const result = loadConfig(configFile(command, args), process.env, { speed: args.speed })
      if (result.kind === 'refused') process.exitCode = printFindings(result.findings, result.warnings)
      else process.stdout.write(`${JSON.stringify(explain(result.config, method.toUpperCase(), path), null, 2)}\n`)
    })
}
