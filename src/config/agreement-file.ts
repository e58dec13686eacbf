import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { agreementOptions, type Agreement, type Bound, type WrittenAgreement, type WrittenBound } from '../agreements/agreement.ts'
import { ROOT } from '../package.ts'
import { fileFault } from './file-fault.ts'
import { fileSchema, validator } from './file-schema.ts'
import { nearest, type Finding } from './findings.ts'
import { parseDuration, parseRate, parseSize } from './units.ts'
import { withDefaults } from './walk.ts'
import { isTree, parseYaml } from './yaml-document.ts'

const SHIPPED = join(ROOT, 'config', 'agreements')

const schema = fileSchema(agreementOptions, 'Integration agreement')
const validate = validator(schema)

export type AgreementResult = { kind: 'read'; agreement: Agreement } | { kind: 'refused'; findings: Finding[] } | { kind: 'unknown'; message: string }

/**
 * Reads the agreement of that name: a path (with `/` or `.yaml`, relative to `folder`), a file in `folder/agreements`, or one
 * that is shipped, by name or alias.
 */
export function readAgreement(name: string, folder: string): AgreementResult {
  if (name.includes('/') || /\.ya?ml$/.test(name)) {
    const file = resolve(folder, name)
    return existsSync(file) ? readFrom(file) : { kind: 'unknown', message: 'no such file' }
  }
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_-]*$/.test(name)) return { kind: 'unknown', message: 'neither the name of an agreement nor a path' }
  const own = join(folder, 'agreements', `${name}.yaml`)
  if (existsSync(own)) return readFrom(own)
  const shipped = agreementFiles(SHIPPED)
  const exact = shipped.find((file) => basename(file, '.yaml') === name)
  if (exact !== undefined) return readFrom(exact)
  const aliases: string[] = []
  for (const file of shipped) {
    const result = readFrom(file)
    if (result.kind !== 'read') continue
    if (result.aliases.includes(name)) return result
    aliases.push(result.agreement.name, ...result.aliases)
  }
  const meant = nearest(name, aliases)
  const names = shipped.map((file) => basename(file, '.yaml')).join(', ')
  return { kind: 'unknown', message: `no agreement of that name; ${meant === undefined ? `shipped: ${names}` : `did you mean ${meant}?`}` }
}

/** The names of the agreements that come with Attache. */
export function shippedAgreements(): string[] {
  return agreementFiles(SHIPPED).map((file) => basename(file, '.yaml'))
}

function agreementFiles(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => name.endsWith('.yaml'))
    .toSorted()
    .map((name) => join(folder, name))
}

function readFrom(file: string): (AgreementResult & { kind: 'refused' | 'unknown' }) | { kind: 'read'; agreement: Agreement; aliases: readonly string[] } {
  const text = textOf(file)
  if (typeof text !== 'string') return text
  const parsed = parseYaml(text, file)
  if (parsed.kind === 'refused') return parsed
  const { tree, lineOf } = parsed.document
  const findings: Finding[] = validate(tree).map(({ path, message }) => ({ file, line: lineOf(path), key: path.join('.'), message }))
  if (findings.length > 0) return { kind: 'refused', findings }
  const written = withDefaults(tree, schema) as WrittenAgreement
  const bounds = written.bounds.map((bound, index) => {
    const result = boundFrom(bound)
    if (result === undefined) {
      findings.push({
        file,
        line: lineOf(['bounds', String(index)]),
        key: `bounds.${index}`,
        message: 'min, max and atMost must be numbers, durations, sizes or rates'
      })
    }
    return result
  })
  if (findings.length > 0) return { kind: 'refused', findings }
  const { upstream, credential } = written.defaults
  const agreement: Agreement = {
    name: written.name,
    title: written.title,
    file,
    defaults: { upstream: isTree(upstream) ? upstream : {}, credential: isTree(credential) ? credential : {} },
    bounds: bounds.filter((bound) => bound !== undefined),
    requires: written.requires
  }
  return { kind: 'read', agreement, aliases: written.aliases }
}

function textOf(file: string): string | { kind: 'unknown'; message: string } {
  try {
    return statSync(file).isFile() ? readFileSync(file, 'utf8') : { kind: 'unknown', message: 'is not a file' }
  } catch (error) {
    return { kind: 'unknown', message: fileFault(error) ?? 'cannot be read' }
  }
}

function boundFrom(written: WrittenBound): Bound | undefined {
  const min = written.min === undefined ? undefined : Array.isArray(written.min) ? written.min.map(amount) : amount(written.min)
  const max = written.max === undefined ? undefined : amount(written.max)
  const atMost = written.atMost === undefined ? undefined : parseRate(written.atMost)
  const unreadable = (value: unknown): boolean => Number.isNaN(value)
  if (unreadable(max) || (Array.isArray(min) ? min.some(unreadable) : unreadable(min))) return undefined
  if (written.atMost !== undefined && atMost === undefined) return undefined
  const shown = written.min ?? written.max
  return {
    clause: written.clause,
    key: written.key,
    why: written.why,
    written: Array.isArray(shown) ? shown.join(', ') : String(shown),
    ...(min === undefined ? {} : { min }),
    ...(max === undefined ? {} : { max }),
    ...(written.includes === undefined ? {} : { includes: written.includes }),
    ...(atMost === undefined ? {} : { atMost })
  }
}

/** A number, a duration or a size as a number; NaN where it is none. */
function amount(value: unknown): number {
  if (typeof value === 'number') return value
  return typeof value === 'string' ? (parseDuration(value) ?? parseSize(value) ?? Number.NaN) : Number.NaN
}
