import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { onTestFinished } from 'vitest'
import { formatFinding } from '../../../src/config/findings.ts'
import { loadConfig, type LoadOptions, type LoadResult } from '../../../src/config/load.ts'

/** A folder that is gone when the test is over. */
export function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'attache-config-'))
  onTestFinished(() => rmSync(path, { recursive: true, force: true }))
  return path
}

/** Writes files into a new folder and gives the path of the first one. */
export function files(contents: Readonly<Record<string, string>>): string {
  const root = folder()
  for (const [name, text] of Object.entries(contents)) {
    mkdirSync(dirname(join(root, name)), { recursive: true })
    writeFileSync(join(root, name), text, { mode: 0o600 })
  }
  return join(root, Object.keys(contents)[0] ?? '')
}

/** Loads a config given as text. */
export function load(yaml: string, environment: NodeJS.ProcessEnv = {}, options: LoadOptions = {}): LoadResult {
  return loadConfig(files({ 'attache.yaml': yaml }), environment, options)
}

/** The config, or the findings as a failure. */
export function loaded(yaml: string, environment: NodeJS.ProcessEnv = {}, options: LoadOptions = {}): Extract<LoadResult, { kind: 'loaded' }> {
  return accepted(load(yaml, environment, options))
}

export function accepted(result: LoadResult): Extract<LoadResult, { kind: 'loaded' }> {
  if (result.kind === 'loaded') return result
  throw new Error(`refused:\n${result.findings.map(formatFinding).join('\n')}`)
}

/** Every finding as `line: key: message`, without the file. */
export function refused(yaml: string, environment: NodeJS.ProcessEnv = {}, options: LoadOptions = {}): string[] {
  const result = load(yaml, environment, options)
  return result.kind === 'loaded'
    ? []
    : result.findings.map((finding) =>
        formatFinding({ ...finding, file: 'F' })
          .replace(/^F:?/, '')
          .trim()
      )
}

/** Every warning as `key: message`. */
export function warned(yaml: string, environment: NodeJS.ProcessEnv = {}, options: LoadOptions = {}): string[] {
  return load(yaml, environment, options).warnings.map((finding) => `${finding.key}: ${finding.message}`)
}
