import { resolve } from 'node:path'
import type { SecretSource } from '../exchange/secret.ts'
import { REFERENCE, shapeOf, type Kind, type Schema } from './file-schema.ts'
import { ConfigError } from './findings.ts'
import { fileSecret, fixedSecret, readableByOthers, type Warn } from './secret-source.ts'
import { parseDate, parseDuration, parseListen, parseRate, parseSize } from './units.ts'
import { at, mapLeaves, type Path } from './walk.ts'

/** Something wrong at a path of the tree; becomes a `Finding` once the line is known. */
export type Issue = { readonly path: Path; readonly message: string }

export type Surroundings = {
  readonly environment: NodeJS.ProcessEnv
  /** The folder of the config file: relative paths start here. */
  readonly folder: string
  readonly warn: Warn
}

export type Substituted = {
  readonly tree: unknown
  readonly issues: readonly Issue[]
  /** What stood in the file where a reference was replaced, by dotted path. */
  readonly references: ReadonlyMap<string, string>
}

/**
 * Replaces `${NAME}` in every text but secrets, which keep their reference until they are decoded. In the free maps `headers`
 * and `params` a whole value may be `file:/path` too.
 */
export function substitute(tree: unknown, schema: Schema, { environment, folder, warn }: Surroundings): Substituted {
  const issues: Issue[] = []
  const references = new Map<string, string>()
  const changed = mapLeaves(tree, schema, (value, leaf, path) => {
    if (typeof value !== 'string' || leaf['x-attache'] === 'secret') return value
    if (mayReferToFile(path) && value.startsWith('file:')) {
      try {
        const text = fileSecret(value, resolve(folder, filePath(value)), warn)
          .read()
          .reveal()
        references.set(path.join('.'), value)
        return text
      } catch (error) {
        issues.push({ path, message: `${value} ${reasonOf(error)}` })
        return value
      }
    }
    const fault = referenceFault(value, environment)
    if (fault !== undefined) {
      issues.push({ path, message: fault })
      return value
    }
    const text = withVariables(value, environment)
    if (text !== value) references.set(path.join('.'), value)
    if (!mayReferToFile(path) || !value.startsWith('file:')) return text === value ? value : scalarFor(leaf, text)
    references.set(path.join('.'), value)
    try {
      return fileSecret(value, resolve(folder, filePath(text)), warn)
        .read()
        .reveal()
    } catch (error) {
      issues.push({ path, message: `${value} ${reasonOf(error)}` })
      return value
    }
  })
  return { tree: changed, issues, references }
}

export type Decoding = {
  readonly tree: unknown
  readonly issues: readonly Issue[]
  readonly warnings: readonly Issue[]
  /** Secrets that stand in the file itself. */
  readonly literals: readonly Path[]
}

/** Turns the human values of a valid tree into what the rooms work with; the one place where this happens. */
export function decode(tree: unknown, schema: Schema, surroundings: Surroundings): Decoding {
  const issues: Issue[] = []
  const warnings: Issue[] = []
  const literals: Path[] = []
  const decoded = mapLeaves(tree, schema, (value, leaf, path) => {
    const kind = leaf['x-attache']
    if (kind === undefined || typeof value !== 'string') return value
    if (kind === 'secret') return decodeSecret(value, path)
    const result = decodeText(kind, value, surroundings.folder)
    if (result === undefined) issues.push({ path, message: shapeOf(kind) })
    return result
  })

  function decodeSecret(text: string, path: Path): SecretSource | undefined {
    const fault = referenceFault(text, surroundings.environment)
    if (fault !== undefined) {
      issues.push({ path, message: fault })
      return undefined
    }
    try {
      if (text.startsWith('file:')) {
        const file = resolve(surroundings.folder, filePath(withVariables(text, surroundings.environment)))
        const source = fileSecret(text, file, surroundings.warn)
        source.read()
        if (!isPublic(path) && readableByOthers(file)) warnings.push({ path, message: `${text} can be read by others than its owner, chmod 600 it` })
        return source
      }
      const value = withVariables(text, surroundings.environment)
      const isLiteral = value === text
      // a user name identifies, it does not prove
      if (isLiteral && !isPublic(path) && path.at(-1) !== 'username') literals.push(path)
      return fixedSecret(isLiteral ? '[literal]' : text, value)
    } catch (error) {
      issues.push({ path, message: `${text.startsWith('file:') || text.includes('${') ? text : 'the value'} ${reasonOf(error)}` })
      return undefined
    }
  }

  return { tree: decoded, issues, warnings, literals }
}

function decodeText(kind: Exclude<Kind, 'secret'>, text: string, folder: string): unknown {
  switch (kind) {
    case 'duration':
      return parseDuration(text)
    case 'size':
      return parseSize(text)
    case 'rate':
      return parseRate(text)
    case 'date':
      return parseDate(text)
    case 'listen':
      return parseListen(text, folder)
    case 'path':
      return resolve(folder, text)
  }
}

/** Certificates are handed out freely: they may stand in the file and be readable by all. */
function isPublic(path: Path): boolean {
  const key = path.at(-1)
  return key === 'ca' || key === 'certificate'
}

function mayReferToFile(path: Path): boolean {
  const map = path.at(-2)
  return path.length === 4 && (map === 'headers' || map === 'params')
}

function filePath(reference: string): string {
  return reference.slice('file:'.length).replace(/^\/\/(?=\/)/, '')
}

function withVariables(text: string, environment: NodeJS.ProcessEnv): string {
  return text.replaceAll(REFERENCE, (_, name: string) => environment[name] ?? '')
}

/** What keeps the references of a text from being replaced; undefined where nothing does. */
function referenceFault(text: string, environment: NodeJS.ProcessEnv): string | undefined {
  const missing = [...text.matchAll(REFERENCE)].map((match) => match[1] ?? '').filter((name) => environment[name] === undefined)
  if (missing.length > 0) return missing.map((name) => `the environment variable ${name} is not set`).join(', ')
  // a default (${NAME:-x}) or a brace forgotten would otherwise be sent as it stands
  return text.replaceAll(REFERENCE, '').includes('${') ? 'has a ${ that begins no reference: write ${NAME}, with letters, digits and _' : undefined
}

function reasonOf(error: unknown): string {
  if (error instanceof ConfigError) return error.message
  throw error
}

/** A variable's text where a number or a flag is wanted. */
function scalarFor(schema: Schema, text: string): unknown {
  if ((schema.type === 'number' || schema.type === 'integer') && /^-?\d+(?:\.\d+)?$/.test(text)) return Number(text)
  if (schema.type === 'boolean' && (text === 'true' || text === 'false')) return text === 'true'
  return text
}

/** A copy without what stands at these paths; list items leave no gap. */
export function prune(tree: unknown, paths: readonly Path[]): unknown {
  const sorted = paths.filter((path) => path.length > 0 && at(tree, path) !== undefined)
  return sorted.reduce<unknown>((pruned, path) => removeFrom(pruned, path), structuredClone(tree))
}

function removeFrom(tree: unknown, path: Path): unknown {
  const [segment, ...rest] = path
  if (segment === undefined || typeof tree !== 'object' || tree === null) return tree
  if (Array.isArray(tree)) {
    // a broken item must not move the others, whose paths are still to come: the list falls back to its default as a whole
    return rest.length === 0 ? undefined : tree.map((item, index) => (String(index) === segment ? removeFrom(item, rest) : item))
  }
  const entries = Object.entries(tree).flatMap(([key, value]) => {
    if (key !== segment) return [[key, value] as const]
    const left = rest.length === 0 ? undefined : removeFrom(value, rest)
    return left === undefined ? [] : [[key, left] as const]
  })
  return Object.fromEntries(entries)
}
