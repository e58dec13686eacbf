/** The published JSON Schema of the file, derived from the option schemas, and what its violations are called. */
import type { TSchema } from '../exchange/options.ts'
import { nearest } from './findings.ts'
import { faultsOf, type Fault } from './schema-faults.ts'

/** How a text of the file becomes a value, see `exchange/options.ts`. */
export type Kind = 'duration' | 'size' | 'rate' | 'date' | 'secret' | 'path' | 'listen'

/** The part of JSON Schema that the option vocabulary uses, as plain data. */
export type Schema = {
  readonly type?: string
  readonly description?: string
  readonly default?: unknown
  readonly properties?: Readonly<Record<string, Schema>>
  readonly patternProperties?: Readonly<Record<string, Schema>>
  readonly required?: readonly string[]
  readonly items?: Schema
  readonly anyOf?: readonly Schema[]
  readonly enum?: readonly unknown[]
  readonly pattern?: string
  readonly minimum?: number
  readonly maximum?: number
  readonly additionalProperties?: boolean
  readonly 'x-attache'?: Kind
}

/** What is wrong with one key. */
export type Violation = { readonly path: readonly string[]; readonly message: string }

export type Validate = (tree: unknown) => Violation[]

/** The parts of a text that stand for environment variables. */
export const REFERENCE = /\$\{([A-Za-z_][A-Za-z0-9_]*)\}/g

/**
 * The schema of what people write: a key with a default need not be there, and wherever a text is expected an
 * environment variable may stand in.
 */
export function fileSchema(options: TSchema, title: string): Schema & { $schema: string; title: string } {
  // through JSON: TypeBox keeps marks of its own on the objects, the published schema is plain data
  const bare = JSON.parse(JSON.stringify(options)) as Schema
  return { $schema: 'http://json-schema.org/draft-07/schema#', title, ...asWritten(bare) }
}

function asWritten(schema: Schema): Schema {
  const written: Record<string, unknown> = { ...schema }
  if (schema.properties !== undefined) {
    const properties = schema.properties
    written['properties'] = mapValues(properties, asWritten)
    const required = (schema.required ?? []).filter((key) => properties[key]?.default === undefined)
    delete written['required']
    if (required.length > 0) written['required'] = required
  }
  if (schema.patternProperties !== undefined) written['patternProperties'] = mapValues(schema.patternProperties, asWritten)
  if (schema.items !== undefined) written['items'] = asWritten(schema.items)
  if (schema.anyOf !== undefined) written['anyOf'] = schema.anyOf.map(asWritten)
  if (schema.pattern !== undefined) written['pattern'] = `${schema.pattern}|\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}`
  return written
}

function mapValues<From, To>(values: Readonly<Record<string, From>>, change: (value: From) => To): Record<string, To> {
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [key, change(value)]))
}

/** A check that gives every violation at once, in words for the person who wrote the file. */
export function validator(schema: Schema): Validate {
  return function validate(tree) {
    return faultsOf(schema, tree).map((fault) => ({ path: fault.path, message: messageOf(fault, schema) }))
  }
}

const KINDS: Record<Kind, string> = {
  duration: 'must be a duration such as 250ms, 10s, 5m, 1h or 30d',
  size: 'must be a size such as 64KiB or 6MB',
  rate: 'must be a rate such as 100/1m',
  date: 'must be a date such as 2028-01-31',
  secret: 'must be a reference such as ${NAME} or file:/path',
  path: 'must be a path',
  listen: 'must be an address such as 127.0.0.1:7600 or unix:/path'
}

/** What a text of this kind should look like. */
export function shapeOf(kind: Kind): string {
  return KINDS[kind]
}

function messageOf({ keyword, schema, value, key = '' }: Fault, root: Schema): string {
  const kind = schema['x-attache']
  if (kind !== undefined) return KINDS[kind]
  switch (keyword) {
    case 'additionalProperties':
      return unknownKey(key, schema, root)
    case 'required':
      return `is missing${describe(schema.properties?.[key])}`
    case 'type':
      return `must be ${article(schema.type ?? '')}${describe(schema)}`
    case 'enum': {
      const words = (schema.enum ?? []).map(String)
      const meant = typeof value === 'string' ? nearest(value, words) : undefined
      return `must be one of ${words.join(', ')}${meant === undefined ? '' : `; did you mean ${meant}?`}`
    }
    case 'pattern':
      return `has the wrong form${describe(schema)}`
    case 'minimum':
      return `must be at least ${schema.minimum}`
    case 'maximum':
      return `must be at most ${schema.maximum}`
    case 'anyOf':
      return `is not allowed here${describe(schema)}`
  }
}

function describe(schema: Schema | undefined): string {
  return schema?.description === undefined ? '' : ` (${schema.description})`
}

function article(type: string): string {
  if (type === 'object') return 'a map of keys'
  if (type === 'array') return 'a list'
  if (type === 'integer') return 'a whole number'
  if (type === 'string') return 'a text, in quotes where YAML would read something else'
  if (type === 'boolean') return 'true or false'
  return `a ${type}`
}

function unknownKey(key: string, schema: Schema, root: Schema): string {
  const known = Object.keys(schema.properties ?? {})
  // the right key in the wrong place is likelier than a slip of the pen
  const inside = known.find((name) => Object.hasOwn(schema.properties?.[name]?.properties ?? {}, key))
  if (inside !== undefined) return `unknown key; did you mean ${inside}.${key}?`
  const meant = nearest(key, known)
  if (meant !== undefined) return `unknown key; did you mean ${meant}?`
  const elsewhere = placeOf(key, root, '')
  if (elsewhere !== undefined) return `unknown key here; it belongs to ${elsewhere}`
  return `unknown key; known here: ${known.join(', ')}`
}

function placeOf(key: string, schema: Schema, at: string): string | undefined {
  if (Object.hasOwn(schema.properties ?? {}, key)) return at === '' ? 'the top level' : at
  for (const [name, inner] of Object.entries(schema.properties ?? {})) {
    const found = placeOf(key, inner, at === '' ? name : `${at}.${name}`)
    if (found !== undefined) return found
  }
  const each = Object.values(schema.patternProperties ?? {})[0]
  return each === undefined ? undefined : placeOf(key, each, `${at}.NAME`)
}
