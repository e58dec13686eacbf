import type { ListenAddress } from '../exchange/options.ts'
import { isLoopback } from '../http/loopback.ts'
import type { Issue } from './decode.ts'
import { credentialNames } from './precedence.ts'
import type { RuleContext } from './rules.ts'
import type { Config } from './schema.ts'
import type { Path } from './walk.ts'

/** Who may connect, where secrets may go, and whether time may run faster: everything that depends on addresses. */
export function networkIssues(config: Config, context: RuleContext): Issue[] {
  return [
    ...listenIssues(config),
    ...doubleListeners(config),
    ...originIssues(config),
    ...urlIssues(config),
    ...literalIssues(config, context),
    ...literalFieldIssues(config, context),
    ...stateIssues(config, context),
    ...speedIssues(config, context.speed)
  ]
}

/** Whether only this machine can reach the address: a loopback name or a unix socket. */
export function isLocal(address: ListenAddress): boolean {
  return address.kind === 'unix' || isLoopback(address.host.includes(':') ? `[${address.host}]` : address.host.toLowerCase())
}

function listeners(config: Config): { path: Path; address: ListenAddress }[] {
  const own = Object.entries(config.upstreams).flatMap(([name, { listen }]) =>
    listen === undefined ? [] : [{ path: ['upstreams', name, 'listen'], address: listen }]
  )
  return [{ path: ['listen'], address: config.listen }, { path: ['admin', 'listen'], address: config.admin.listen }, ...own]
}

// the admin port guards itself: without a token it answers only health and metrics on such an address
function listenIssues(config: Config): Issue[] {
  if (config.allowRemote || Object.keys(config.clients).length > 0) return []
  return listeners(config)
    .filter(({ path, address }) => path[0] !== 'admin' && !isLocal(address))
    .map(({ path }) => ({ path, message: 'whoever can connect acts with your credentials: keep to a loopback address, or set clients or allowRemote: true' }))
}

function doubleListeners(config: Config): Issue[] {
  const seen = new Map<string, Path>()
  return listeners(config).flatMap(({ path, address }) => {
    // any free port is another one each time
    if (address.kind === 'tcp' && address.port === 0) return []
    // localhost, 127.0.0.1 and 0.0.0.0 cannot share a port either
    const key = address.kind === 'unix' ? address.path : String(address.port)
    const first = seen.get(key)
    seen.set(key, first ?? path)
    return first === undefined ? [] : [{ path, message: `the same ${address.kind === 'unix' ? 'socket' : 'port'} as ${first.join('.')}` }]
  })
}

function originIssues(config: Config): Issue[] {
  const hosts = config.allowHosts.flatMap((host, index) =>
    /^(?:[A-Za-z0-9_.-]+|\[[0-9a-fA-F:.]+\])$/.test(host)
      ? []
      : [{ path: ['allowHosts', String(index)], message: 'must be a host name without scheme, port or wildcard; an IPv6 address in brackets' }]
  )
  const origins = config.allowOrigins.flatMap((origin, index) => {
    const url = URL.parse(origin)
    return url !== null && url.origin === origin && !origin.includes('*')
      ? []
      : [{ path: ['allowOrigins', String(index)], message: 'must be an origin such as http://localhost:3000, without path or wildcard' }]
  })
  return [...hosts, ...origins]
}

function urlIssues(config: Config): Issue[] {
  return Object.entries(config.upstreams).flatMap(([name, upstream]) => {
    const path = ['upstreams', name, 'baseUrl']
    const url = URL.parse(upstream.baseUrl)
    if (url === null) return [{ path, message: 'is not a URL' }]
    if (url.protocol !== 'https:' && url.protocol !== 'http:') return [{ path, message: 'must begin with https: (or http: on loopback)' }]
    const issues: Issue[] = []
    if (url.username !== '' || url.password !== '') issues.push({ path, message: 'must not hold a user or password, use a credential' })
    if (url.search !== '' || url.hash !== '' || /[?#]$/.test(upstream.baseUrl)) issues.push({ path, message: 'must not have a query or fragment' })
    if (url.protocol === 'http:' && !isLoopback(url.hostname) && credentialNames(upstream.credential).length > 0) {
      issues.push({ path, message: 'must begin with https:, a credential crosses the network (http: is for loopback only)' })
    }
    return issues
  })
}

/** Secrets written into the file, where anything they serve lies beyond this machine. */
function literalIssues(config: Config, { literals }: RuleContext): Issue[] {
  return literals
    .filter((path) => !urlsServedBy(path, config).every(isLoopbackUrl) || !listensLocally(path, config))
    .map((path) => ({ path, message: 'a secret must not stand in the file: write ${NAME} or file:/path (a literal is for loopback only)' }))
}

/** Names of header fields whose value is likely to be a secret. */
export const SECRET_FIELD = /^(?:authorization|cookie)$|key$|secret|token|password/i

/** The same for fields that are set on every call and look like a secret by their name. */
function literalFieldIssues(config: Config, { references }: RuleContext): Issue[] {
  return Object.entries(config.upstreams)
    .filter(([, upstream]) => !isLoopbackUrl(upstream.baseUrl))
    .flatMap(([name, upstream]) =>
      Object.keys(upstream.headers)
        .map((header) => ({ header, path: ['upstreams', name, 'headers', header] }))
        .filter(({ header, path }) => SECRET_FIELD.test(header) && !references.has(path.join('.')))
        .map(({ path }) => ({ path, message: 'looks like a secret, which must not stand in the file: write ${NAME} or file:/path' }))
    )
}

/** Redis is another machine more often than not: where it is, and that its password does not stand in the file. */
function stateIssues({ state }: Config, { references }: RuleContext): Issue[] {
  if (!/^rediss?:/.test(state)) return []
  const url = URL.parse(state)
  if (url === null) return [{ path: ['state'], message: 'is not a URL, write redis://HOST:PORT/DB' }]
  const issues: Issue[] = []
  if (!/^(?:\/\d{0,5})?$/.test(url.pathname)) issues.push({ path: ['state'], message: 'must end in the number of a database, e.g. redis://HOST:PORT/0' })
  if (url.password !== '' && !isLoopbackUrl(state) && !references.has('state')) {
    issues.push({ path: ['state'], message: 'a password must not stand in the file: write ${NAME} in its place (a literal is for loopback only)' })
  }
  return issues
}

function urlsServedBy([top, name]: Path, config: Config): string[] {
  if (top === 'credentials' && name !== undefined) {
    const upstreams = Object.values(config.upstreams).filter((upstream) => credentialNames(upstream.credential).includes(name))
    return [...tokenUrls(config, name), ...upstreams.map((upstream) => upstream.baseUrl)]
  }
  return []
}

function listensLocally([top]: Path, config: Config): boolean {
  if (top === 'clients') return listeners(config).every(({ path, address }) => path[0] === 'admin' || isLocal(address))
  return top === 'admin' ? isLocal(config.admin.listen) : true
}

function tokenUrls(config: Config, name: string): string[] {
  const { tokenUrl, issuer, authorizationUrl } = config.credentials[name] ?? {}
  // where the token URL is given, the issuer is a mere identifier
  return [tokenUrl ?? issuer, authorizationUrl].filter((url) => url !== undefined)
}

function speedIssues(config: Config, speed: number): Issue[] {
  if (speed === 1) return []
  const urls = [
    ...Object.entries(config.upstreams).map(([name, { baseUrl }]) => ({ path: ['upstreams', name, 'baseUrl'], url: baseUrl })),
    ...Object.keys(config.credentials).flatMap((name) => tokenUrls(config, name).map((url) => ({ path: ['credentials', name], url }))),
    ...(config.state.startsWith('redis') ? [{ path: ['state'], url: config.state }] : [])
  ]
  return urls
    .filter(({ url }) => !isLoopbackUrl(url))
    .map(({ path }) => ({ path, message: '--speed is for rehearsals: every configured URL must be on loopback' }))
}

/** Whether the URL can only lead to this machine; what is no URL leads nowhere. */
export function isLoopbackUrl(text: string): boolean {
  const url = URL.parse(text)
  // the parser gives back unknown schemes' hosts as written
  return url === null || isLoopback(url.hostname.toLowerCase())
}
