import { REFERENCE } from './file-schema.ts'
import { publishedSchema, type Origin, type Origins } from './load.ts'
import { SECRET_FIELD } from './network-rules.ts'
import { mapLeaves } from './walk.ts'
import { toYaml, type Tree } from './yaml-document.ts'

/**
 * The effective config as YAML, each value with a comment that says where it comes from. Secrets appear as the reference
 * that names them; what stands literally in a file on loopback appears as `[secret]`.
 */
export function showConfig(origins: Origins, file: string): string {
  const masked = mapLeaves(origins.tree, publishedSchema, (value, schema, path) => {
    if (path.join('.') === 'state' && typeof value === 'string') return withoutPassword(value)
    if (typeof value !== 'string' || !(schema['x-attache'] === 'secret' || isSecretField(path))) return value
    return value.startsWith('file:') || value.match(REFERENCE) !== null ? value : '[secret]'
  })
  return toYaml(masked as Tree, (path) => describe(origins.of(path), file))
}

function describe(origin: Origin, file: string): string {
  if (origin.kind === 'file') return `${file}${origin.line === undefined ? '' : `:${origin.line}`}`
  return origin.kind === 'agreement' ? `agreement ${origin.name}` : 'default'
}

function isSecretField(path: readonly string[]): boolean {
  return path[0] === 'upstreams' && path[2] === 'headers' && SECRET_FIELD.test(path[3] ?? '')
}

// redis://user:password@host
function withoutPassword(state: string): string {
  return state.replace(/\/\/([^/@:]*:).*@/, '//$1[secret]@')
}
