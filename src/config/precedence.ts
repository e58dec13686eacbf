import type { Agreement } from '../agreements/agreement.ts'
import { readAgreement } from './agreement-file.ts'
import type { Issue } from './decode.ts'
import type { Finding } from './findings.ts'
import { at, overlay, type Path } from './walk.ts'
import { isTree, type Tree } from './yaml-document.ts'

/** The file laid over its agreements. */
export type Layered = {
  readonly tree: unknown
  readonly issues: readonly Issue[]
  /** What is wrong inside an agreement's own file. */
  readonly findings: readonly Finding[]
  /** By upstream. */
  readonly agreements: ReadonlyMap<string, Agreement>
  /** The agreement that gives a value the file does not write; undefined where none does. */
  agreementAt(path: Path): string | undefined
}

/** Grants whose authorization does not come from a token service: an agreement's rules for tokens do not concern them. */
const WITHOUT_TOKEN_SERVICE = ['static', 'basic', 'mtls', 'none']

/** Built-in default < agreement < file: fills each upstream, and the credentials it uses, from its agreement. */
export function layAgreements(tree: unknown, folder: string): Layered {
  const issues: Issue[] = []
  const findings: Finding[] = []
  const agreements = new Map<string, Agreement>()
  const upstreams = isTree(tree) && isTree(tree['upstreams']) ? tree['upstreams'] : {}

  for (const [name, upstream] of Object.entries(upstreams)) {
    const reference = at(upstream, ['agreement'])
    if (typeof reference !== 'string') continue
    const result = readAgreement(reference, folder)
    if (result.kind === 'read') agreements.set(name, result.agreement)
    else if (result.kind === 'refused') findings.push(...result.findings)
    else issues.push({ path: ['upstreams', name, 'agreement'], message: result.message })
  }

  let layered = tree
  for (const [name, agreement] of agreements) layered = layUpstream(layered, name, agreement)
  return {
    tree: layered,
    issues,
    findings,
    agreements,
    agreementAt: (path) => (at(tree, path) === undefined && at(layered, path) !== undefined ? sourceOf(path, tree, agreements) : undefined)
  }
}

function layUpstream(tree: unknown, name: string, agreement: Agreement): unknown {
  const upstream = at(tree, ['upstreams', name])
  const used = credentialNames(at(upstream, ['credential'])).filter((credential) => takesTokens(at(tree, ['credentials', credential])))
  const under: Tree = {
    upstreams: { [name]: withoutReplaced(agreement.defaults.upstream, upstream) },
    credentials: Object.fromEntries(used.map((credential) => [credential, agreement.defaults.credential]))
  }
  // where two upstreams share a credential the first one's agreement fills it, the other's bounds still hold
  return overlay(under, tree)
}

/** A `negative` map in the file replaces the agreement's as a whole; everything else is merged key by key. */
function withoutReplaced(defaults: Tree, upstream: unknown): Tree {
  const cache = defaults['cache']
  if (!isTree(cache) || at(upstream, ['cache', 'negative']) === undefined) return defaults
  return { ...defaults, cache: Object.fromEntries(Object.entries(cache).filter(([key]) => key !== 'negative')) }
}

function takesTokens(credential: unknown): boolean {
  const grant = at(credential, ['grant'])
  return typeof grant === 'string' && !WITHOUT_TOKEN_SERVICE.includes(grant)
}

/** The credentials an upstream's `credential` names, `none` left out. */
export function credentialNames(choice: unknown): string[] {
  const names = Array.isArray(choice) ? choice.map((item) => at(item, ['credential'])) : [choice]
  return [...new Set(names.filter((name): name is string => typeof name === 'string' && name !== 'none'))]
}

function sourceOf(path: Path, tree: unknown, agreements: ReadonlyMap<string, Agreement>): string | undefined {
  const [top, name, ...rest] = path
  if (name === undefined) return undefined
  if (top === 'upstreams') return agreements.get(name)?.name
  for (const [upstream, agreement] of agreements) {
    const uses = credentialNames(at(tree, ['upstreams', upstream, 'credential'])).includes(name)
    if (uses && at(agreement.defaults.credential, rest) !== undefined) return agreement.name
  }
  return undefined
}
