import { isTree } from './yaml-document.ts'

/**
 * Keys that the format has and no room serves yet: each use is named at start and by `check`, never silently ignored. `*`
 * stands for a name or list index; with `values` only these values are meant. Shorten this list as capabilities land.
 */
export const NOT_YET: readonly { readonly key: string; readonly values?: readonly string[] }[] = [
  { key: 'upstreams.*.volume.declared' },
  { key: 'upstreams.*.operations.enumeration' },
  { key: 'upstreams.*.lifecycle' },
  { key: 'upstreams.*.spend' }
]

export type NotYet = { readonly path: readonly string[]; readonly what: string }

/** The keys of this tree that are not available yet. */
export function notYetAvailable(tree: unknown): NotYet[] {
  return NOT_YET.flatMap(({ key, values }) => find(tree, key.split('.'), [], values))
}

function find(value: unknown, pattern: readonly string[], path: readonly string[], values: readonly string[] | undefined): NotYet[] {
  const [segment, ...rest] = pattern
  if (segment === undefined) {
    if (isEmpty(value)) return []
    if (values === undefined) return [{ path, what: path.join('.') }]
    return values.includes(String(value)) ? [{ path, what: `${path.join('.')}: ${String(value)}` }] : []
  }
  if (!isTree(value)) return []
  const keys = segment === '*' ? Object.keys(value) : Object.hasOwn(value, segment) ? [segment] : []
  return keys.flatMap((key) => find(value[key], rest, [...path, key], values))
}

function isEmpty(value: unknown): boolean {
  return value === undefined || (Array.isArray(value) && value.length === 0) || (isTree(value) && Object.keys(value).length === 0)
}
