import { isUtf8 } from 'node:buffer'
import { readFileSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { systemClock } from '../exchange/clock.ts'
import { decode, prune, substitute, type Issue, type Surroundings } from './decode.ts'
import { fileSchema, validator, type Schema } from './file-schema.ts'
import { fileFault } from './file-fault.ts'
import type { Finding } from './findings.ts'
import { notYetAvailable } from './not-yet.ts'
import { withDescribedOperations } from './openapi-file.ts'
import { layAgreements, type Layered } from './precedence.ts'
import { ruleIssues } from './rules.ts'
import { CONFIG_VERSION, configSchema, type Config } from './schema.ts'
import type { Warn } from './secret-source.ts'
import { at, withDefaults, type Path } from './walk.ts'
import { DEEPEST, parseYaml, type Tree, type YamlDocument } from './yaml-document.ts'

/** Where a value comes from. */
export type Origin =
  | { readonly kind: 'default' }
  | { readonly kind: 'agreement'; readonly name: string }
  | { readonly kind: 'file'; readonly line: number | undefined }

/** The effective config as people write it, for `attache config`: agreements and defaults filled in, secrets still references. */
export type Origins = {
  readonly tree: Tree
  of(path: Path): Origin
}

export type LoadResult =
  | { readonly kind: 'loaded'; readonly config: Config; readonly warnings: readonly Finding[]; readonly origins: Origins }
  | { readonly kind: 'refused'; readonly findings: readonly Finding[]; readonly warnings: readonly Finding[] }

export type LoadOptions = {
  /** Anything but 1 is refused unless every configured URL is on loopback. */
  readonly speed?: number
  /** Told when a secret file has become unusable while running; its last good value serves on. */
  readonly warn?: Warn
  /** Whether a key or certificate outside its dates is a finding, or a warning: one provider's must not keep the others from being served. */
  readonly expired?: 'refuse' | 'warn'
  /** The calendar, epoch milliseconds: waivers end. */
  readonly wallNow?: () => number
}

/** The published JSON Schema of the config file. */
export const publishedSchema: Schema = fileSchema(configSchema, 'Configuration of Attache')
const validate = validator(publishedSchema)

/**
 * Reads the config file: references resolved, agreements and defaults filled in, human values decoded. Everything that is
 * wrong is found in one go, each with file, line and key. Reads files, sends nothing, never throws for bad input.
 */
export function loadConfig(file: string, environment: NodeJS.ProcessEnv, options: LoadOptions = {}): LoadResult {
  const text = readText(file)
  if (typeof text !== 'string') return { kind: 'refused', findings: [text], warnings: [] }
  const parsed = parseYaml(text, file)
  if (parsed.kind === 'refused') return { ...parsed, warnings: [] }
  const written = parsed.document
  const newer = newerVersion(written.tree)
  if (newer !== undefined) return { kind: 'refused', findings: [finding(file, written, { path: ['version'], message: newer })], warnings: [] }

  const surroundings: Surroundings = { environment, folder: dirname(resolve(file)), warn: options.warn ?? (() => undefined) }
  const substituted = substitute(written.tree, publishedSchema, surroundings)
  const layered = layAgreements(substituted.tree, surroundings.folder)
  const known = [...substituted.issues, ...layered.issues]
  const violations = validate(layered.tree).filter((violation) => !known.some((issue) => same(issue.path, violation.path)))
  const readable = decode(prune(layered.tree, pathsOf([...known, ...violations])), publishedSchema, surroundings)
  const issues: Issue[] = [...known, ...[...violations, ...readable.issues].map((issue) => fromAgreement(issue, layered))]

  // The rules work on what is left once everything already found is taken out, so that one mistake does not hide the next.
  const sound = withoutBroken(layered.tree, pathsOf(issues))
  const effective = withDefaults(sound, publishedSchema) as Tree
  const decoded = settle(decode(effective, publishedSchema, surroundings).tree as Config, surroundings.folder)
  const { config, issues: undescribed } = withDescribedOperations(decoded)
  issues.push(...undescribed)
  const rules = ruleIssues(config, {
    written: layered.tree,
    agreements: layered.agreements,
    literals: readable.literals,
    references: substituted.references,
    broken: pathsOf(issues),
    speed: options.speed ?? 1,
    expired: options.expired ?? 'refuse',
    wallNow: options.wallNow ?? systemClock().wallNow
  })
  issues.push(...rules.issues)

  const notYet = notYetAvailable(written.tree).map(({ path, what }) => ({ path, message: `not available yet: ${what} is accepted and has no effect` }))
  const warnings = [...readable.warnings, ...rules.warnings, ...notYet].map((issue) => finding(file, written, issue))
  const findings = [...issues.map((issue) => finding(file, written, issue)), ...layered.findings]
  if (findings.length > 0) return { kind: 'refused', findings: inOrder(findings), warnings: inOrder(warnings) }
  return { kind: 'loaded', config, warnings: inOrder(warnings), origins: originsOf(effective, written, layered, substituted.references) }
}

function readText(file: string): string | Finding {
  const refuse = (message: string): Finding => ({ file, line: undefined, key: '', message })
  try {
    if (!statSync(file).isFile()) return refuse('is not a file')
    const bytes = readFileSync(file)
    return isUtf8(bytes) ? bytes.toString('utf8') : refuse('is not UTF-8 text, save it as that')
  } catch (error) {
    const fault = fileFault(error) ?? 'cannot be read'
    return refuse(fault === 'does not exist' ? `${fault}; name another with --config or ATTACHE_CONFIG` : fault)
  }
}

function newerVersion(tree: Tree): string | undefined {
  const version = tree['version']
  if (typeof version !== 'number' || version <= CONFIG_VERSION) return undefined
  return `config version ${version} is newer than this Attache understands (${CONFIG_VERSION}), install a newer one`
}

/** Says so where what is wrong is not in the file but in its agreement. */
function fromAgreement(issue: Issue, layered: Layered): Issue {
  const name = layered.agreementAt(issue.path)
  return name === undefined ? issue : { ...issue, message: `${issue.message} (in the agreement ${name})` }
}

/** What is left when broken values, and everything that needs them, are taken out. */
function withoutBroken(tree: unknown, broken: readonly Path[]): unknown {
  let sound = prune(tree, broken)
  // each round takes out one level more, and no tree is deeper than the parser allows
  for (let round = 0; round < DEEPEST; round++) {
    const holes = validate(sound).map(({ path }) => (at(sound, path) === undefined ? path.slice(0, -1) : path))
    if (holes.length === 0) return sound
    sound = prune(sound, holes)
  }
  return {}
}

/** Last touches that concern the file's place. */
function settle(config: Config, folder: string): Config {
  const sqlite = 'sqlite:'
  if (!config.state.startsWith(sqlite)) return config
  return { ...config, state: sqlite + resolve(folder, config.state.slice(sqlite.length)) }
}

function originsOf(effective: Tree, written: YamlDocument, layered: Layered, references: ReadonlyMap<string, string>): Origins {
  return {
    tree: unresolve(effective, references, []) as Tree,
    of(path) {
      if (at(written.tree, path) !== undefined) return { kind: 'file', line: written.lineOf(path) }
      const name = layered.agreementAt(path)
      return name === undefined ? { kind: 'default' } : { kind: 'agreement', name }
    }
  }
}

/** Puts references back into free maps, whose values may well be secrets. */
function unresolve(value: unknown, references: ReadonlyMap<string, string>, path: Path): unknown {
  if (Array.isArray(value)) return value.map((item, index) => unresolve(item, references, [...path, String(index)]))
  if (typeof value !== 'object' || value === null) {
    const map = path.at(-2)
    return map === 'headers' || map === 'params' || path.join('.') === 'state' ? (references.get(path.join('.')) ?? value) : value
  }
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, unresolve(inner, references, [...path, key])]))
}

function finding(file: string, document: YamlDocument, issue: Issue): Finding {
  return { file, line: document.lineOf(issue.path), key: issue.path.join('.'), message: issue.message }
}

function inOrder(findings: readonly Finding[]): Finding[] {
  return findings.toSorted((a, b) => (a.line ?? 0) - (b.line ?? 0))
}

function pathsOf(issues: readonly Issue[]): Path[] {
  return issues.map((issue) => issue.path)
}

function same(a: Path, b: Path): boolean {
  return a.length === b.length && a.every((segment, index) => segment === b[index])
}
