import type { Schema } from './file-schema.ts'

/** One keyword of the schema that a value does not satisfy; `key` is the one that is unknown or missing. */
export type Fault = {
  readonly keyword: 'type' | 'required' | 'additionalProperties' | 'enum' | 'pattern' | 'minimum' | 'maximum' | 'anyOf'
  readonly path: readonly string[]
  readonly schema: Schema
  readonly value: unknown
  readonly key?: string
}

/** What else may stand in a schema without saying anything about values. */
const ANNOTATIONS = ['$schema', 'title', 'description', 'default', 'x-attache']
const CHECKED = ['type', 'properties', 'patternProperties', 'additionalProperties', 'required', 'items', 'anyOf', 'enum', 'pattern', 'minimum', 'maximum']
const KNOWN = new Set([...ANNOTATIONS, ...CHECKED])

/**
 * Everything that keeps `value` from being valid, by the part of JSON Schema (draft 7) that the option vocabulary uses.
 * Walking the schema costs a millisecond; compiling it, as Ajv does, was a third of the start. That both agree is tested.
 *
 * Of a value with several allowed shapes, the faults are those of the shape it has, or a single `anyOf` where it has none.
 * Throws on a keyword it does not know, whatever the value.
 */
export function faultsOf(schema: Schema, value: unknown, path: readonly string[] = []): Fault[] {
  const unknown = Object.keys(schema).find((keyword) => !KNOWN.has(keyword))
  if (unknown !== undefined) throw new Error(`the schema has a keyword nobody checks: ${unknown}`)
  const fault = (keyword: Fault['keyword'], key?: string): Fault => ({
    keyword,
    path: key === undefined ? path : [...path, key],
    schema,
    value,
    ...(key === undefined ? {} : { key })
  })
  const faults: Fault[] = []
  if (schema.type !== undefined && !isOfType(value, schema.type)) faults.push(fault('type'))
  if (schema.enum !== undefined && !schema.enum.includes(value)) faults.push(fault('enum'))
  if (schema.anyOf !== undefined) faults.push(...alternatives(schema.anyOf, value, path, fault('anyOf')))
  if (typeof value === 'number') {
    if (schema.maximum !== undefined && !(value <= schema.maximum)) faults.push(fault('maximum'))
    if (schema.minimum !== undefined && !(value >= schema.minimum)) faults.push(fault('minimum'))
  }
  if (typeof value === 'string' && schema.pattern !== undefined && !new RegExp(schema.pattern, 'u').test(value)) faults.push(fault('pattern'))
  const { items } = schema
  if (Array.isArray(value)) {
    if (items !== undefined) faults.push(...value.flatMap((item, at) => faultsOf(items, item, [...path, String(at)])))
  } else if (isMap(value)) {
    faults.push(...(schema.required ?? []).filter((key) => value[key] === undefined).map((key) => fault('required', key)))
    for (const [key, inner] of Object.entries(value)) {
      const schemas = schemasFor(schema, key)
      if (schemas.length === 0 && schema.additionalProperties === false) faults.push(fault('additionalProperties', key))
      if (inner !== undefined) faults.push(...schemas.flatMap((one) => faultsOf(one, inner, [...path, key])))
    }
  }
  return faults
}

function alternatives(choices: readonly Schema[], value: unknown, path: readonly string[], none: Fault): Fault[] {
  const each = choices.map((choice) => faultsOf(choice, value, path))
  if (each.some((faults) => faults.length === 0)) return []
  const rightShape = each.filter((faults) => !faults.some((fault) => fault.keyword === 'type' && fault.path.length === path.length))
  return rightShape.length === 0 ? [none] : rightShape.flat()
}

function schemasFor(schema: Schema, key: string): Schema[] {
  const named = schema.properties !== undefined && Object.hasOwn(schema.properties, key) ? schema.properties[key] : undefined
  const matching = Object.entries(schema.patternProperties ?? {}).filter(([pattern]) => new RegExp(pattern, 'u').test(key))
  return [...(named === undefined ? [] : [named]), ...matching.map(([, one]) => one)]
}

function isOfType(value: unknown, type: string): boolean {
  switch (type) {
    case 'object':
      return isMap(value)
    case 'array':
      return Array.isArray(value)
    case 'integer':
      return Number.isInteger(value)
    case 'number':
      return Number.isFinite(value)
    case 'string':
    case 'boolean':
      return typeof value === type
    default:
      throw new Error(`the schema has a type nobody checks: ${type}`)
  }
}

function isMap(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
