import { breaches } from '../agreements/bounds.ts'
import type { Agreement } from '../agreements/agreement.ts'
import { checkCredential, type CredentialOptions } from '../tokens/credentials.ts'
import { DAY_MS, day } from '../tokens/keys/expiry.ts'
import { credentialKeys } from '../tokens/keys/inspect.ts'
import { authorityIssues } from './authority-rules.ts'
import type { Issue } from './decode.ts'
import { nearest } from './findings.ts'
import { networkIssues } from './network-rules.ts'
import { credentialNames } from './precedence.ts'
import type { Config, UpstreamOptions } from './schema.ts'
import { credentialSecrets } from './secret-source.ts'
import { credentialFieldIssues, upstreamIssues } from './upstream-rules.ts'
import { at, type Path } from './walk.ts'

/** What the rules know besides the decoded config. */
export type RuleContext = {
  /** The file laid over its agreements, as written. */
  readonly written: unknown
  readonly agreements: ReadonlyMap<string, Agreement>
  /** Secrets that stand in the file itself. */
  readonly literals: readonly Path[]
  /** What stood in the file where a reference was replaced, by dotted path. */
  readonly references: ReadonlyMap<string, string>
  /** What has been found wrong already and is not in the config. */
  readonly broken: readonly Path[]
  readonly speed: number
  readonly expired: 'refuse' | 'warn'
  readonly wallNow: () => number
}

export type RuleFindings = { readonly issues: readonly Issue[]; readonly warnings: readonly Issue[] }

const NAME = /^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$/

/** Everything that is wrong with a config whose single values are all right. */
export function ruleIssues(config: Config, context: RuleContext): RuleFindings {
  const judged = [...Object.keys(config.upstreams).map((name) => agreementIssues(name, config, context)), keyIssues(config, context)]
  const issues = [
    ...nameIssues(context.written),
    ...networkIssues(config, context),
    ...authorityIssues(config, context.wallNow()),
    ...Object.entries(config.upstreams).flatMap(([name, upstream]) => upstreamIssues(name, upstream)),
    ...credentialFieldIssues(config.credentials),
    ...limitIssues(config),
    ...credentialIssues(config, context),
    ...secondTierIssues(config, context),
    ...judged.flatMap((found) => found.issues)
  ]
  return { issues, warnings: [...unusedCredentials(config, context), ...uncoveredPaths(config), ...judged.flatMap((found) => found.warnings)] }
}

// for node, no time is no limit: whoever sends nothing would be waited for without end
function limitIssues({ limits }: Config): Issue[] {
  return (['headerTimeout', 'bodyTimeout'] as const)
    .filter((key) => limits[key] === 0)
    .map((key) => ({ path: ['limits', key], message: 'must be longer than nothing' }))
}

// names become path segments, metric labels and parts of storage keys
function nameIssues(written: unknown): Issue[] {
  return ['upstreams', 'credentials', 'clients'].flatMap((map) =>
    Object.keys((at(written, [map]) as object | undefined) ?? {})
      .filter((name) => !NAME.test(name) || (map === 'credentials' && name === 'none'))
      .map((name) => ({
        path: [map, name],
        message: name === 'none' ? 'none means no credential, choose another name' : 'a name has letters, digits, - and _, and begins with a letter or digit'
      }))
  )
}

/** Replicas find each other's answers in one Redis, and need a key in common to read them. */
function secondTierIssues(config: Config, { broken }: RuleContext): Issue[] {
  // said already
  if (broken.some(([top]) => top === 'state' || top === 'stateKey' || top === 'credentials')) return []
  const hasKey = config.stateKey !== undefined || credentialSecrets(config.credentials).length > 0
  const message = /^rediss?:/.test(config.state)
    ? hasKey
      ? undefined
      : 'needs stateKey: there is no secret in credentials from which replicas could derive the same key'
    : 'needs state: redis://HOST:PORT/DB, where replicas find the answers'
  if (message === undefined) return []
  return Object.entries(config.upstreams)
    .filter(([, { cache }]) => cache.secondTier)
    .map(([name]) => ({ path: ['upstreams', name, 'cache', 'secondTier'], message }))
}

// sent without a credential, which is hardly ever what was meant
function uncoveredPaths(config: Config): Issue[] {
  return Object.entries(config.upstreams)
    .filter(([, { credential }]) => Array.isArray(credential) && credential.every((entry) => entry.match !== undefined && entry.match !== '/**'))
    .map(([name]) => ({
      path: ['upstreams', name, 'credential'],
      message: 'what matches no entry is sent without a credential; end the list with { credential: NAME }, or { credential: none } if that is meant'
    }))
}

function credentialIssues(config: Config, { written, broken }: RuleContext): Issue[] {
  const known = Object.keys((at(written, ['credentials']) as object | undefined) ?? {})
  const missing = Object.entries(config.upstreams).flatMap(([upstream, { credential }]) =>
    credentialNames(credential)
      .filter((name) => !known.includes(name))
      .map((name) => {
        const meant = nearest(name, known)
        return {
          path: ['upstreams', upstream, 'credential', ...placeIn(credential, name)],
          message: `no credential of that name${meant === undefined ? '' : `; did you mean ${meant}?`}`
        }
      })
  )
  const unfit = Object.entries(config.credentials)
    .filter(([name]) => !broken.some((path) => path[0] === 'credentials' && path[1] === name))
    .flatMap(([name, options]) => checkCredential(name, options).map((message) => ({ path: ['credentials', name], message })))
  return [...missing, ...unfit]
}

/** Keys and certificates: whether they can be used, belong together, and how long they last. */
function keyIssues(config: Config, { broken, expired, wallNow }: RuleContext): RuleFindings {
  const issues: Issue[] = []
  const warnings: Issue[] = []
  for (const { credential, findings } of credentialKeys(config.credentials, wallNow())) {
    // said already
    if (broken.some((path) => path[0] === 'credentials' && path[1] === credential)) continue
    for (const finding of findings) {
      const issue = { path: ['credentials', credential, 'key'], message: finding.message }
      const isOutOfDate = finding.reason === 'expired' || finding.reason === 'not-yet-valid'
      if (!finding.isFatal || (isOutOfDate && expired === 'warn') || isWaived(finding.clause, credential, config, wallNow())) warnings.push(issue)
      else issues.push(issue)
    }
  }
  return { issues, warnings }
}

function isWaived(clause: string, credential: string, config: Config, now: number): boolean {
  return Object.values(config.upstreams)
    .filter((upstream) => credentialNames(upstream.credential).includes(credential))
    .some((upstream) => upstream.waivers.some((waiver) => waiver.clause === clause && waiver.until + DAY_MS > now))
}

function placeIn(choice: UpstreamOptions['credential'], name: string): string[] {
  return typeof choice === 'object' ? [String(choice.findIndex((item) => item.credential === name)), 'credential'] : []
}

function unusedCredentials(config: Config, { written }: RuleContext): Issue[] {
  const used = new Set(
    Object.values((at(written, ['upstreams']) as object | undefined) ?? {}).flatMap((upstream) => credentialNames(at(upstream, ['credential'])))
  )
  return Object.keys(config.credentials)
    .filter((name) => !used.has(name))
    .map((name) => ({ path: ['credentials', name], message: 'no upstream uses this credential' }))
}

/** Clauses that keys are held to, not settings. */
const KEY_CLAUSES = ['IA-06', 'IA-07', 'IA-09']

/** Settings laxer than the agreement, save where a waiver that has not ended covers the clause. */
function agreementIssues(name: string, config: Config, { agreements, broken, wallNow }: RuleContext): RuleFindings {
  const upstream = config.upstreams[name]
  const agreement = agreements.get(name)
  const at = ['upstreams', name]
  if (upstream === undefined) return { issues: [], warnings: [] }
  if (agreement === undefined) {
    const idle = upstream.waivers.map((_, index) => ({ path: [...at, 'waivers', String(index)], message: 'a waiver needs an agreement to waive' }))
    return { issues: [], warnings: upstream.agreement === undefined ? idle : [] }
  }

  const issues: Issue[] = []
  const warnings: Issue[] = []
  const credentials = credentialNames(upstream.credential).filter((credential) => fetchesTokens(config.credentials[credential]))
  const found = [
    ...breaches(agreement, { upstream: asUsed(upstream) }).map((breach) => ({ breach, path: [...at, ...breach.key.split('.').slice(1)] })),
    ...credentials.flatMap((credential) =>
      breaches(agreement, { credential: config.credentials[credential] }).map((breach) => ({
        breach,
        path: ['credentials', credential, ...breach.key.split('.').slice(1)]
      }))
    )
  ].filter(({ path }) => !broken.some((bad) => path.every((segment, index) => bad[index] === undefined || bad[index] === segment)))

  const used = new Set<number>()
  for (const { breach, path } of found) {
    const index = upstream.waivers.findIndex((waiver) => waiver.clause === breach.clause)
    const waiver = upstream.waivers[index]
    used.add(index)
    if (waiver === undefined) issues.push({ path, message: breach.message })
    // the day named is the last one
    else if (waiver.until + DAY_MS <= wallNow()) {
      issues.push({
        path: [...at, 'waivers', String(index)],
        message: `the waiver for ${waiver.clause} ended on ${day(waiver.until)}, and ${path.join('.')} ${breach.message}`
      })
    } else warnings.push({ path, message: `${breach.message}; waived until ${day(waiver.until)}: ${waiver.reason}` })
  }
  upstream.waivers.forEach((waiver, index) => {
    if (!used.has(index) && !KEY_CLAUSES.includes(waiver.clause))
      warnings.push({ path: [...at, 'waivers', String(index)], message: `nothing breaks ${waiver.clause} of ${agreement.title}, the waiver can go` })
  })
  return { issues, warnings }
}

function fetchesTokens(credential: CredentialOptions | undefined): credential is CredentialOptions {
  return credential !== undefined && !['static', 'basic', 'mtls', 'none'].includes(credential.grant)
}

/** The ladder as it is climbed: one step per retry, the last one repeating. */
function asUsed(upstream: UpstreamOptions): UpstreamOptions {
  const { attempts, backoff } = upstream.retry
  const climbed = Array.from({ length: attempts - 1 }, (_, i) => backoff[Math.min(i, backoff.length - 1)] ?? 0)
  return { ...upstream, retry: { ...upstream.retry, backoff: climbed } }
}
