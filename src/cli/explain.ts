import { Option, type Command } from 'commander'
import type { Explanation } from '../config/explain.ts'
import { configCommand, configFile, type ConfigArguments } from './options.ts'
import { printFindings } from './report.ts'

type ExplainArguments = ConfigArguments & { readonly format: 'text' | 'json' }

/** `attache explain METHOD PATH`: which upstream, operation, policies, credential and cache key would serve a request; sends nothing. */
export function addExplainCommand(program: Command): void {
  configCommand(program, 'explain', 'say which upstream, operation, policies, credential and cache key would serve a request; sends nothing')
    .argument('<method>', 'request method')
    .argument('<path>', 'path as the app would ask for it, e.g. /finfo/v1/articles/7')
    .addOption(new Option('--format <format>', 'how to print it').choices(['text', 'json']).default('text'))
    .action(async (method: string, path: string, args: ExplainArguments, command: Command) => {
      const file = configFile(command, args)
      const { loadConfig } = await import('../config/load.ts')
      const { explain } = await import('../config/explain.ts')
      const result = loadConfig(file, process.env, { speed: args.speed })
      if (result.kind === 'refused') {
        process.exitCode = printFindings(result.findings, result.warnings)
        return
      }
      const explanation = explain(result.config, method.toUpperCase(), path)
      process.stdout.write(args.format === 'json' ? `${JSON.stringify(explanation, null, 2)}\n` : inWords(explanation))
    })
}

function inWords(explanation: Explanation): string {
  const { request, answer, upstream, url, agreement, operation, credential, cacheKey, policies = [] } = explanation
  const lines = [request]
  const add = (label: string, text: string | undefined): void => {
    if (text !== undefined) lines.push(`  ${label.padEnd(12)}${text}`)
  }
  if (answer !== undefined) {
    add('answer', `${answer.code} from Attache itself: ${answer.why}`)
    for (const suggestion of answer.suggestions ?? []) add('', `did you mean ${suggestion}`)
  }
  add('upstream', upstream === undefined ? undefined : `${upstream}${agreement === undefined ? '' : `, agreement ${agreement}`}`)
  add('calls', url)
  add('operation', operation)
  add(
    'credential',
    credential === undefined ? undefined : `${credential.name}${credential.grant === undefined ? '' : ` (${credential.grant})`}: ${credential.why}`
  )
  add('cache key', cacheKey?.join(' + '))
  if (policies.length > 0) lines.push('  policies, outermost first')
  for (const { policy, does, settings } of policies) {
    lines.push(`    ${policy.padEnd(12)}${does}`)
    for (const [key, value] of Object.entries(settings)) lines.push(`    ${''.padEnd(12)}  ${key}: ${JSON.stringify(value)}`)
  }
  return `${lines.join('\n')}\n`
}
