import type { Schema } from './file-schema.ts'
import { isTree, type Tree } from './yaml-document.ts'

export type Path = readonly string[]

/** What to make of one leaf (text, number, flag, or anything without a schema of its own). */
export type OnLeaf = (value: unknown, schema: Schema, path: Path) => unknown

/** A copy of the tree with every leaf changed; the schema is followed along, keys it does not know keep their place. */
export function mapLeaves(value: unknown, schema: Schema, onLeaf: OnLeaf, path: Path = []): unknown {
  const fitting = shapeFor(schema, value)
  if (Array.isArray(value)) return value.map((item, index) => mapLeaves(item, fitting.items ?? {}, onLeaf, [...path, String(index)]))
  if (!isTree(value)) return onLeaf(value, fitting, path)
  const entries = Object.entries(value).map(([key, inner]) => [key, mapLeaves(inner, schemaOf(fitting, key), onLeaf, [...path, key])] as const)
  return Object.fromEntries(entries)
}

/** A copy where every key that has a default and is not written has its default, sections inside sections too. */
export function withDefaults(value: unknown, schema: Schema): unknown {
  const fitting = shapeFor(schema, value)
  if (Array.isArray(value)) return value.map((item) => withDefaults(item, fitting.items ?? {}))
  if (!isTree(value)) return value
  const missing = Object.entries(fitting.properties ?? {}).filter(([key, inner]) => value[key] === undefined && inner.default !== undefined)
  const whole: Tree = { ...value, ...Object.fromEntries(missing.map(([key, inner]) => [key, inner.default])) }
  // in the order of the schema, which is the order in which the sections read well
  const known = Object.keys(fitting.properties ?? {}).filter((key) => whole[key] !== undefined)
  const others = Object.keys(whole).filter((key) => !known.includes(key))
  return Object.fromEntries([...known, ...others].map((key) => [key, withDefaults(whole[key], schemaOf(fitting, key))]))
}

/** Lays one tree over another: maps are merged, anything else is replaced as a whole. */
export function overlay(under: unknown, over: unknown): unknown {
  if (over === undefined) return under
  if (!isTree(under) || !isTree(over)) return over
  const keys = new Set([...Object.keys(over), ...Object.keys(under)])
  return Object.fromEntries([...keys].map((key) => [key, overlay(under[key], over[key])]))
}

/** The value at a path; undefined where there is none. */
export function at(tree: unknown, path: Path): unknown {
  let value = tree
  for (const segment of path) {
    if (Array.isArray(value)) value = value[Number(segment)]
    else if (isTree(value) && Object.hasOwn(value, segment)) value = value[segment]
    else return undefined
  }
  return value
}

function schemaOf(schema: Schema, key: string): Schema {
  const properties = schema.properties ?? {}
  if (Object.hasOwn(properties, key)) return properties[key] ?? {}
  return Object.values(schema.patternProperties ?? {})[0] ?? {}
}

/** Of alternatives, the one that has the value's shape. */
function shapeFor(schema: Schema, value: unknown): Schema {
  if (schema.anyOf === undefined) return schema
  const type = Array.isArray(value) ? 'array' : isTree(value) ? 'object' : typeof value
  return schema.anyOf.find((branch) => branch.type === type) ?? {}
}
