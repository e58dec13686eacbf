import { readFileSync } from 'node:fs'
import { operationsFromOpenapi } from '../http/openapi.ts'
import type { Issue } from './decode.ts'
import { fileFault } from './file-fault.ts'
import type { Config, UpstreamOptions } from './schema.ts'
import { parseData } from './yaml-document.ts'

/**
 * The config with each upstream's OpenAPI description read into `operations.allow`, beside what the file lists there. A
 * description that cannot be used is an issue: it must mean neither that everything nor that nothing is allowed.
 */
export function withDescribedOperations(config: Config): { config: Config; issues: Issue[] } {
  const issues: Issue[] = []
  const upstreams = Object.entries(config.upstreams).map(([name, upstream]): [string, UpstreamOptions] => {
    const { openapi, allow = [] } = upstream.operations
    if (openapi === undefined) return [name, upstream]
    try {
      const described = operationsFromOpenapi(parseData(readFileSync(openapi, 'utf8')))
      return [name, { ...upstream, operations: { ...upstream.operations, allow: [...allow, ...described] } }]
    } catch (error) {
      issues.push({ path: ['upstreams', name, 'operations', 'openapi'], message: reasonOf(error) })
      return [name, upstream]
    }
  })
  return { config: { ...config, upstreams: Object.fromEntries(upstreams) }, issues }
}

function reasonOf(error: unknown): string {
  return fileFault(error) ?? (error instanceof Error ? error.message : 'cannot be used')
}
