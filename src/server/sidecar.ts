import { chmodSync, rmSync } from 'node:fs'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { explain } from '../config/explain.ts'
import { formatFinding } from '../config/findings.ts'
import type { LoadResult } from '../config/load.ts'
import type { Config } from '../config/schema.ts'
import { systemClock, systemRandom } from '../exchange/clock.ts'
import type { Event } from '../exchange/events.ts'
import type { ListenAddress } from '../exchange/options.ts'
import { Problem } from '../exchange/problem.ts'
import type { SecretSource } from '../exchange/secret.ts'
import type { Tools } from '../exchange/tools.ts'
import { VERSION } from '../package.ts'
import { answerKey } from '../state/answer-key.ts'
import { openStore } from '../state/open-store.ts'
import { metrics } from '../telemetry/metrics.ts'
import { openLog, type Log } from '../telemetry/log.ts'
import { openCredentials } from '../tokens/credentials.ts'
import { watchExpiry, type ExpiryWatch } from '../tokens/keys/watch-expiry.ts'
import type { Credentials } from '../tokens/source.ts'
import { tokenFetch } from '../transport/token-fetch.ts'
import { adminPort } from './admin-port.ts'
import { checks } from './checks.ts'
import { dataPort } from './data-port.ts'
import { refuseRequest, type Door, type DownstreamTools } from './downstream.ts'
import { httpServer, isWebsocket, type Handler } from './http-server.ts'
import { openUpstream, type Upstream } from './upstreams.ts'

export type SidecarOptions = {
  /** Scaled seconds per real second. */
  readonly speed: number
  /** Where the log goes; standard output when undefined. */
  readonly logFile?: string
}

/** A running sidecar. */
export type Sidecar = {
  readonly dataUrl: string
  readonly adminUrl: string
  /** Loads the configuration again; a broken one changes nothing. */
  reload(): Promise<void>
  /** Ends gracefully; resolves with the exit code: 0 when every request under way was answered. */
  drain(): Promise<number>
}

/** Everything that a configuration gives rise to, and that a reload replaces as a whole. */
type Generation = {
  readonly config: Config
  readonly credentials: Credentials
  readonly expiry: ExpiryWatch
  readonly upstreams: ReadonlyMap<string, Upstream>
  readonly ports: ReadonlyMap<string, Handler & { close(): Promise<void> }>
}

const MAIN_PORT = 'main'
// Callers with a keep-alive connection have this long to notice that answers now say `Connection: close`.
const LAME_DUCK_MS = 400

/** Starts the sidecar; resolves when both ports accept connections. Rejects where an address is taken or the config refused. */
export async function startSidecar(load: () => LoadResult, options: SidecarOptions): Promise<Sidecar> {
  const first = loaded(load())
  const clock = systemClock(options.speed)
  const startedAt = clock.wallNow()
  const log = openLog(first.config.log.level, options.logFile)
  const counters = metrics({ version: VERSION, node: process.version })
  const tools: Tools = { clock, random: systemRandom, report }
  const store = await openStore(first.config.state, tools)
  for (const warning of first.warnings) log.warn(formatFinding(warning))

  let inFlight = 0
  let isDraining = false
  let generation = await open(first.config)
  const servers = new Map<string, Server>()

  function report(event: Event): void {
    counters.count(event)
    log.write(event)
  }

  async function open(config: Config): Promise<Generation> {
    const credentials = await openCredentials(config.credentials, { ...tools, store, version: VERSION, tokenFetch: tokenFetch() })
    const expiry = watchExpiry(credentials, { ...tools, store })
    const sealKey = answerKey(config.state, { stateKey: config.stateKey?.read().reveal(), credentials: secretsOf(config) }, report)
    const parts = {
      ...tools,
      store,
      credentials,
      sealKey,
      operationsOf: () =>
        async function operations(request: Parameters<Door['send']>[0], next: Door['send']) {
          return next(request)
        }
    }
    const upstreams = new Map(Object.entries(config.upstreams).map(([name, upstream]) => [name, openUpstream(name, upstream, config, parts)]))
    const check = checks({ allowHosts: config.allowHosts, allowOrigins: config.allowOrigins, clients: config.clients })
    const downstream = downstreamTools(config.allowOrigins.length > 0)

    async function port(doors: readonly Door[]): Promise<Handler & { close(): Promise<void> }> {
      return dataPort(
        {
          doors,
          check,
          authorizeUpgrade: async (door, target, signal) => {
            const name = door.credentialOf('GET', target.split('?')[0] ?? '/')
            if (name === undefined) return undefined
            const source = credentials.get(name)
            if (source === undefined) throw new Problem('token-unavailable', { detail: 'the credential is not configured' })
            return source.authorize({ method: 'GET', url: door.base.href.slice(0, -1) + target, target }, signal)
          },
          own: (message, response) => refuseRequest(message, response, new Problem('unknown-operation', { detail: 'nothing here' }), downstream)
        },
        downstream
      )
    }
    const ports = new Map([[MAIN_PORT, await port([...upstreams.values()].map((upstream) => upstream.door))]])
    for (const upstream of upstreams.values()) {
      if (upstream.options.listen !== undefined) ports.set(upstream.name, await port([{ ...upstream.door, prefix: '' }]))
    }
    return { config, credentials, expiry, upstreams, ports }
  }

  function downstreamTools(servesBrowsers: boolean): DownstreamTools {
    const prefix = `${startedAt.toString(36)}-${Math.floor(systemRandom() * 46_656).toString(36)}`
    let sequence = 0
    return {
      clock,
      report,
      servesBrowsers,
      isDraining: () => isDraining,
      underWay: (change) => void (inFlight += change),
      nextId: () => `${prefix}-${(sequence++).toString(36)}`
    }
  }

  function handlerOf(name: string): () => Handler {
    return () => generation.ports.get(name) ?? gone
  }

  async function listenAll(config: Config): Promise<void> {
    await listenOn(MAIN_PORT, config.listen)
    for (const upstream of generation.upstreams.values()) {
      if (upstream.options.listen !== undefined) await listenOn(upstream.name, upstream.options.listen)
    }
  }

  async function listenOn(name: string, address: ListenAddress): Promise<void> {
    if (servers.has(name)) return
    const { limits } = generation.config
    const server = httpServer(
      {
        headerBytes: limits.headerBytes,
        headerMs: clock.realMs(limits.headerTimeout),
        keepAliveMs: clock.realMs(limits.keepAlive),
        connections: limits.connections,
        isUpgrade: isWebsocket
      },
      handlerOf(name)
    )
    await listen(server, address)
    servers.set(name, server)
  }

  const admin = await adminPort(
    {
      isReady: () => !isDraining,
      metrics: async () => ({ text: await counters.text(), contentType: counters.contentType }),
      status,
      explain: (method, path) => explain(generation.config, method, path),
      purgeCache(upstream, prefix) {
        if (upstream === undefined) return [...generation.upstreams.values()].reduce((sum, each) => sum + each.pipeline.cache.purge(prefix), 0)
        return generation.upstreams.get(upstream)?.pipeline.cache.purge(prefix)
      },
      setBreaker(name, state) {
        const upstream = generation.upstreams.get(name)
        upstream?.pipeline.breaker.set(state)
        return upstream !== undefined
      }
    },
    {
      check: checks({ allowHosts: first.config.allowHosts, allowOrigins: first.config.allowOrigins, clients: {} }),
      isLoopback: isLoopback(first.config.admin.listen),
      token: first.config.admin.token === undefined ? undefined : () => first.config.admin.token!.read()
    }
  )
  const adminServer = httpServer({ headerBytes: 16_384, headerMs: 10_000, keepAliveMs: 65_000, connections: 200, isUpgrade: () => false }, () => admin)

  function status(): Record<string, unknown> {
    return {
      version: VERSION,
      startedAt: new Date(startedAt).toISOString(),
      speed: options.speed,
      state: store.kind,
      draining: isDraining,
      inFlight,
      upstreams: Object.fromEntries(
        [...generation.upstreams.values()].map((upstream) => [
          upstream.name,
          {
            baseUrl: upstream.options.baseUrl,
            agreement: upstream.options.agreement,
            policies: upstream.pipeline.policies,
            breaker: upstream.pipeline.breaker.state(),
            cache: { bytes: upstream.pipeline.cache.bytes, entries: upstream.pipeline.cache.entries }
          }
        ])
      ),
      credentials: generation.credentials.all().map((source) => source.status())
    }
  }

  try {
    await listenAll(first.config)
    await listen(adminServer, first.config.admin.listen)
  } catch (error) {
    await Promise.allSettled([...servers.values(), adminServer].map(closed))
    await closeGeneration(generation)
    await store.close()
    throw error
  }
  const dataServer = servers.get(MAIN_PORT)!
  const sidecar = { dataUrl: urlOf(dataServer, first.config.listen), adminUrl: urlOf(adminServer, first.config.admin.listen) }
  log.info('ready', { data: sidecar.dataUrl, admin: sidecar.adminUrl, version: VERSION, upstreams: [...generation.upstreams.keys()] })

  async function reload(): Promise<void> {
    const result = load()
    if (result.kind === 'refused') {
      for (const finding of result.findings) log.error(formatFinding(finding))
      report({ kind: 'config-reload', result: 'failure' })
      return
    }
    const previous = generation
    generation = await open(result.config)
    for (const upstream of generation.upstreams.values()) {
      if (upstream.options.listen !== undefined) await listenOn(upstream.name, upstream.options.listen)
    }
    report({ kind: 'config-reload', result: 'success' })
    // requests under way keep the rooms they started in
    clock.after(result.config.drain, () => void closeGeneration(previous))
  }

  async function drain(): Promise<number> {
    isDraining = true
    log.info('draining', { inFlight })
    const all = [...servers.values()]
    if (inFlight > 0 || (await connections(all)) > 0) await clock.sleep(LAME_DUCK_MS * options.speed)
    const closing = Promise.all(all.map(closed))
    for (const server of all) server.closeIdleConnections()
    const isQuiet = await Promise.race([closing.then(() => true), clock.sleep(generation.config.drain).then(() => false)])
    const lost = isQuiet ? 0 : inFlight
    for (const server of [...all, adminServer]) server.closeAllConnections()
    await closed(adminServer)
    await admin.close()
    await closeGeneration(generation)
    await store.close()
    log.info('stopped', { lost })
    log.flush()
    return lost === 0 ? 0 : 1
  }

  return { ...sidecar, reload, drain }
}

const gone: Handler = {
  request: (_message, response) => void response.destroy(),
  upgrade: (_message, socket) => void socket.destroy()
}

function loaded(result: LoadResult): Extract<LoadResult, { kind: 'loaded' }> {
  if (result.kind === 'loaded') return result
  throw new Error(`the configuration was refused: ${result.findings.map(formatFinding).join('; ')}`)
}

/** Every secret of every credential, in a stable order. */
function secretsOf(config: Config): string[] {
  return Object.entries(config.credentials)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([, credential]) => Object.values(credential).filter(isSecretSource))
    .map((source) => source.read().reveal())
}

function isSecretSource(value: unknown): value is SecretSource {
  return typeof value === 'object' && value !== null && 'reference' in value && 'read' in value
}

async function closeGeneration(generation: Generation): Promise<void> {
  await Promise.allSettled([...generation.ports.values()].map((port) => port.close()))
  await Promise.allSettled([...generation.upstreams.values()].map((upstream) => upstream.close()))
  generation.expiry.close()
  await generation.credentials.close()
}

function listen(server: Server, address: ListenAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    if (address.kind === 'unix') {
      // a socket file left behind by a crash would keep the address taken for ever
      rmSync(address.path, { force: true })
      server.listen(address.path, () => {
        chmodSync(address.path, 0o600)
        resolve()
      })
    } else server.listen(address.port, address.host, resolve)
  })
}

function closed(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve())
  })
}

async function connections(servers: readonly Server[]): Promise<number> {
  const counts = await Promise.all(
    servers.map((server) => new Promise<number>((resolve) => server.getConnections((error, count) => resolve(error === null ? count : 0))))
  )
  return counts.reduce((sum, count) => sum + count, 0)
}

function urlOf(server: Server, address: ListenAddress): string {
  if (address.kind === 'unix') return `unix:${address.path}`
  const { port } = server.address() as AddressInfo
  return `http://${address.host.includes(':') ? `[${address.host}]` : address.host}:${port}`
}

function isLoopback(address: ListenAddress): boolean {
  return address.kind === 'unix' || address.host === 'localhost' || address.host === '::1' || /^127\./.test(address.host)
}

export type { Log }
