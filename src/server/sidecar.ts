import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { explain } from '../config/explain.ts'
import { formatFinding } from '../config/findings.ts'
import type { LoadResult } from '../config/load.ts'
import type { Config } from '../config/schema.ts'
import { credentialSecrets } from '../config/secret-source.ts'
import { systemClock, systemRandom, type Clock } from '../exchange/clock.ts'
import type { Event } from '../exchange/events.ts'
import type { ListenAddress } from '../exchange/options.ts'
import { Problem } from '../exchange/problem.ts'
import type { Tools } from '../exchange/tools.ts'
import { operations } from '../operations/operations.ts'
import { VERSION } from '../package.ts'
import { answerKey } from '../state/answer-key.ts'
import { openStore } from '../state/open-store.ts'
import { metrics } from '../telemetry/metrics.ts'
import { openLog } from '../telemetry/log.ts'
import { adminPort } from './admin-port.ts'
import type { DownstreamTools } from './door.ts'
import { doorkeeper } from './doorkeeper.ts'
import { refuseRequest, serveOwn } from './downstream.ts'
import { MAIN_PORT, listenersOf, openGeneration, type Generation } from './generation.ts'
import { httpServer, isWebsocket, refuse, type Handler } from './http-server.ts'
import { affordableConnections, closed, isLoopback, listen, urlOf } from './listeners.ts'
import { localAnswer } from './local-answer.ts'
import { volumes } from './volumes.ts'

export type SidecarOptions = {
  /** Scaled seconds per real second. */
  readonly speed: number
  /** Where the log goes; standard output when undefined. */
  readonly logFile?: string
  /** The process's own where absent; `speed` is then the one it was made for. */
  readonly clock?: Clock
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

/** Starts the sidecar; resolves when both ports accept connections. Rejects where an address is taken or the config refused. */
export async function startSidecar(load: () => LoadResult, options: SidecarOptions): Promise<Sidecar> {
  const first = loaded(load())
  const { clock = systemClock(options.speed) } = options
  const startedAt = clock.wallNow()
  const log = openLog(first.config.log.level, clock, options.logFile)
  const counters = metrics({ version: VERSION, node: process.version })
  const tools: Tools = { clock, random: systemRandom, report }
  for (const warning of first.warnings) log.warn(formatFinding(warning))

  const door = doorkeeper(clock)
  const store = await openStore(first.config.state, tools)
  const sealKey = answerKey(
    first.config.state,
    { stateKey: first.config.stateKey?.read().reveal(), credentials: credentialSecrets(first.config.credentials).map((source) => source.read().reveal()) },
    report
  )
  const downstream = downstreamTools()
  const background = operations({
    ...tools,
    store,
    sealKey,
    upstreamOf: (name) => current.upstreams.get(name),
    problemAnswer: localAnswer
  })
  const retired = new Set<Generation>()
  const servers = new Map<string, Server>()
  let current = await open(first.config)

  function report(event: Event): void {
    counters.count(event)
    log.write(event)
  }

  function open(config: Config): Promise<Generation> {
    for (const name of Object.keys(config.upstreams)) counters.expect(name)
    return openGeneration(config, { ...tools, store, sealKey, operationsOf: background.policy, downstream, own })
  }

  function downstreamTools(): DownstreamTools {
    const prefix = `${startedAt.toString(36)}-${Math.floor(systemRandom() * 46_656).toString(36)}`
    let sequence = 0
    return {
      clock,
      report,
      servesBrowsers: false,
      isDraining: door.isDraining,
      underWay: door.underWay,
      nextId: () => `${prefix}-${(sequence++).toString(36)}`
    }
  }

  function own(message: IncomingMessage, response: ServerResponse): void {
    void serveOwn(message, response, { '/_attache/operations/': background.handle }, downstream)
  }

  const closing: Handler = {
    request: (message, response) => refuseRequest(message, response, new Problem('draining'), downstream),
    upgrade: (_message, socket) => refuse(socket, new Problem('draining'), clock)
  }

  /** Opens what the configuration asks for and is not open yet; where one address cannot be had, none of them. */
  async function openListeners(config: Config): Promise<void> {
    const wanted = listenersOf(config)
    const share = Math.floor(affordableConnections() / wanted.size)
    if (share < config.limits.connections) log.warn(`callers have ${share} connections at once: the process may not open more files (ulimit -n)`)
    const limits = { ...config.limits, connections: Math.min(share, config.limits.connections) }
    const before = new Set(servers.keys())
    try {
      for (const [key, address] of wanted) if (!servers.has(key)) await listenOn(key, address, limits)
    } catch (error) {
      closeListeners((key) => !before.has(key))
      throw error
    }
  }

  function closeListeners(isOver: (key: string) => boolean): void {
    for (const [key, server] of servers) {
      if (!isOver(key)) continue
      servers.delete(key)
      void closed(server)
      server.closeIdleConnections()
    }
  }

  async function listenOn(key: string, address: ListenAddress, limits: Config['limits']): Promise<void> {
    const server = httpServer(
      {
        headerBytes: limits.headerBytes,
        headerMs: limits.headerTimeout,
        keepAliveMs: limits.keepAlive,
        connections: limits.connections,
        isUpgrade: isWebsocket
      },
      () => current.ports.get(key) ?? closing,
      clock
    )
    await listen(server, address)
    servers.set(key, server)
  }

  const { admin: adminOptions } = first.config
  const admin = await adminPort(
    {
      isReady: () => !door.isDraining(),
      metrics: async () => ({ text: await counters.text(), contentType: counters.contentType }),
      status,
      report: async () =>
        volumes({
          version: VERSION,
          speed: options.speed,
          startedAt,
          now: clock.wallNow(),
          upstreams: [...current.upstreams.values()],
          credentials: current.credentials.all().map((source) => source.name),
          metrics: await counters.text()
        }),
      explain: (method, path) => explain(current.config, method, path),
      async purgeCache(upstream, prefix) {
        if (upstream === undefined) {
          const dropped = await Promise.all([...current.upstreams.values()].map((each) => each.pipeline.cache.purge(prefix)))
          return dropped.reduce((sum, each) => sum + each, 0)
        }
        return current.upstreams.get(upstream)?.pipeline.cache.purge(prefix)
      },
      async renewCredential(name) {
        const source = current.credentials.get(name)
        await source?.renew?.()
        return source?.renew !== undefined
      },
      setBreaker(name, state) {
        const upstream = current.upstreams.get(name)
        upstream?.pipeline.breaker.set(state)
        return upstream !== undefined
      }
    },
    {
      check: (caller) => current.adminCheck(caller),
      isLoopback: isLoopback(adminOptions.listen),
      token: adminOptions.token?.read
    }
  )
  const adminServer = httpServer({ headerBytes: 16_384, headerMs: 10_000, keepAliveMs: 65_000, connections: 200, isUpgrade: () => false }, () => admin, clock)

  function status(): Record<string, unknown> {
    return {
      version: VERSION,
      startedAt: new Date(startedAt).toISOString(),
      speed: options.speed,
      state: store.kind,
      draining: door.isDraining(),
      inFlight: door.inFlight,
      upstreams: Object.fromEntries([...current.upstreams.values()].map((upstream) => [upstream.name, upstream.status()])),
      credentials: current.credentials.all().map((source) => source.status())
    }
  }

  async function closeAll(): Promise<void> {
    await background.close()
    await Promise.allSettled([current, ...retired].map((each) => each.close()))
    await store.close()
  }

  try {
    await openListeners(first.config)
    await listen(adminServer, adminOptions.listen)
    await background.resume()
  } catch (error) {
    await Promise.allSettled([...servers.values(), adminServer].map(closed))
    await admin.close()
    await closeAll()
    throw error
  }
  const dataServer = servers.get(MAIN_PORT) ?? adminServer
  const urls = { dataUrl: urlOf(dataServer, first.config.listen), adminUrl: urlOf(adminServer, adminOptions.listen) }
  log.info('ready', { data: urls.dataUrl, admin: urls.adminUrl, version: VERSION, upstreams: [...current.upstreams.keys()] })

  let reloading: Promise<void> | undefined
  let reloadAgain = false

  // Signals may come faster than a configuration can be opened: whatever comes meanwhile is one more reload at the end.
  async function reload(): Promise<void> {
    reloadAgain = reloading !== undefined
    reloading ??= (async () => {
      do {
        reloadAgain = false
        await reloadOnce()
      } while (reloadAgain)
      reloading = undefined
    })()
    await reloading
  }

  async function reloadOnce(): Promise<void> {
    try {
      const next = loaded(load())
      for (const warning of next.warnings) log.warn(formatFinding(warning))
      const opened = await open(next.config)
      try {
        await openListeners(next.config)
      } catch (error) {
        await opened.close()
        throw error
      }
      const previous = current
      current = opened
      retired.add(previous)
      const wanted = listenersOf(next.config)
      closeListeners((key) => !wanted.has(key))
      for (const key of needingRestart(first.config, next.config)) log.warn(`${key} has changed: restart to put it in force`)
      background.refresh()
      report({ kind: 'config-reload', result: 'success' })
      // requests under way keep the rooms they started in
      clock.after(previous.config.drain, () => {
        retired.delete(previous)
        void previous.close()
      })
    } catch (error) {
      log.error(`the configuration in force stays: ${error instanceof Error ? error.message : String(error)}`)
      report({ kind: 'config-reload', result: 'failure' })
    }
  }

  async function drain(): Promise<number> {
    const all = [...servers.values()]
    log.info('draining', { inFlight: door.inFlight })
    const lost = await door.drain(all, current.config.drain)
    for (const server of [...all, adminServer]) server.closeAllConnections()
    await closed(adminServer)
    await admin.close()
    await closeAll()
    log.info('stopped', { lost })
    log.close()
    return lost === 0 ? 0 : 1
  }

  return { ...urls, reload, drain }
}

function loaded(result: LoadResult): Extract<LoadResult, { kind: 'loaded' }> {
  if (result.kind === 'loaded') return result
  throw new Error(result.findings.map(formatFinding).join('\n'))
}

// what was opened once for the life of the process
function needingRestart(started: Config, next: Config): string[] {
  const fixed = ['listen', 'admin', 'state', 'stateKey', 'limits', 'log'] as const
  return fixed.filter((key) => JSON.stringify(started[key]) !== JSON.stringify(next[key]))
}
