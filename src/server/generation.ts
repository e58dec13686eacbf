import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Config } from '../config/schema.ts'
import type { Policy } from '../exchange/chain.ts'
import type { ListenAddress } from '../exchange/options.ts'
import type { Tools } from '../exchange/tools.ts'
import { VERSION } from '../package.ts'
import { openSecondTier } from '../state/open-store.ts'
import type { Store } from '../state/store.ts'
import { openCredentials } from '../tokens/credentials.ts'
import { watchExpiry, type ExpiryWatch } from '../tokens/keys/watch-expiry.ts'
import type { Credentials } from '../tokens/source.ts'
import { tokenFetch } from '../transport/token-fetch.ts'
import { checks, type Caller } from './checks.ts'
import { dataPort, type DataPort } from './data-port.ts'
import type { Door, DownstreamTools } from './door.ts'
import { listenerKey } from './listeners.ts'
import { openUpstream, type Upstream } from './upstreams.ts'

/** Everything a configuration gives rise to, and that a reload replaces as a whole. */
export type Generation = {
  readonly config: Config
  readonly credentials: Credentials
  readonly upstreams: ReadonlyMap<string, Upstream>
  /** What answers on each listener: the main one, and by `listenerKey` one for each upstream with a port of its own. */
  readonly ports: ReadonlyMap<string, DataPort>
  /** Who is listened to on the admin port; callers prove themselves there by its token alone. */
  readonly adminCheck: (caller: Caller) => void
  close(): Promise<void>
}

export type GenerationParts = Tools & {
  readonly store: Store
  readonly sealKey: Buffer
  readonly operationsOf: (upstream: string) => Policy
  readonly downstream: DownstreamTools
  /** Answers `/_attache/…`. */
  readonly own: (message: IncomingMessage, response: ServerResponse) => void
}

export const MAIN_PORT = '/'

/** Where the data port listens, by the key of `Generation.ports`. */
export function listenersOf(config: Config): Map<string, ListenAddress> {
  const own = Object.entries(config.upstreams).flatMap(([name, { listen: address }]): [string, ListenAddress][] =>
    address === undefined ? [] : [[listenerKey(name, address), address]]
  )
  return new Map([[MAIN_PORT, config.listen], ...own])
}

export async function openGeneration(config: Config, parts: GenerationParts): Promise<Generation> {
  const credentials = await openCredentials(config.credentials, { ...parts, version: VERSION, tokenFetch: tokenFetch() })
  const expiry: ExpiryWatch = watchExpiry(credentials, parts)
  const wantsTier = Object.values(config.upstreams).some((upstream) => upstream.cache.secondTier)
  const secondTier = wantsTier ? await openSecondTier(config.state, parts) : undefined
  const common = { ...parts, credentials, secondTier }
  const upstreams = new Map(Object.entries(config.upstreams).map(([name, upstream]) => [name, openUpstream(name, upstream, config, common)]))
  const check = checks({ ...config, headerCount: config.limits.headerCount })

  function port(doors: readonly Door[]): Promise<DataPort> {
    return dataPort({ doors, check, own: parts.own }, { ...parts.downstream, servesBrowsers: config.allowOrigins.length > 0 })
  }

  const ports = new Map([[MAIN_PORT, await port([...upstreams.values()].map((upstream) => upstream.door))]])
  for (const upstream of upstreams.values()) {
    const { listen } = upstream.options
    if (listen !== undefined) ports.set(listenerKey(upstream.name, listen), await port([{ ...upstream.door, prefix: '' }]))
  }

  return {
    config,
    credentials,
    upstreams,
    ports,
    adminCheck: checks({ ...config, clients: {}, headerCount: config.limits.headerCount }),
    async close() {
      await Promise.allSettled([...ports.values()].map((each) => each.close()))
      await Promise.allSettled([...upstreams.values()].map((upstream) => upstream.close()))
      await secondTier?.close()
      expiry.close()
      await credentials.close()
    }
  }
}
