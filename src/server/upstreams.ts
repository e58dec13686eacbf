import type { Config, UpstreamOptions } from '../config/schema.ts'
import { credentialSelector, operationNamer } from '../config/selection.ts'
import type { Policy } from '../exchange/chain.ts'
import type { Tools } from '../exchange/tools.ts'
import { answerCleaner, requestCleaner } from '../http/hygiene.ts'
import { looselyRead } from '../http/target.ts'
import type { Fields } from '../http/fields.ts'
import { VERSION } from '../package.ts'
import { pipeline, type Pipeline } from '../pipeline.ts'
import type { SecondTier } from '../state/second-tier.ts'
import type { Store } from '../state/store.ts'
import type { Credentials } from '../tokens/source.ts'
import { transport } from '../transport/transport.ts'
import type { Door } from './door.ts'

/** One upstream, ready to serve: its chain, its door on the data port, and the way to end it. */
export type Upstream = {
  readonly name: string
  readonly options: UpstreamOptions
  readonly pipeline: Pipeline
  readonly door: Door
  /** For `/api/status`. */
  status(): Record<string, unknown>
  close(): Promise<void>
}

export type UpstreamParts = Tools & {
  readonly store: Store
  readonly credentials: Credentials
  readonly sealKey: Buffer
  readonly secondTier: SecondTier | undefined
  readonly operationsOf: (upstream: string) => Policy
}

/** Builds one upstream of the configuration. */
export function openUpstream(name: string, options: UpstreamOptions, config: Config, parts: UpstreamParts): Upstream {
  const base = new URL(options.baseUrl.endsWith('/') ? options.baseUrl : `${options.baseUrl}/`)
  const tools = { ...parts, upstream: name }
  const wire = transport(
    {
      baseUrl: base.href,
      connectMs: options.timeout.connect,
      // one more than volume lets through: an idle connection just closing must not be waited for
      connections: options.volume.concurrency + 1,
      answerHeaderBytes: config.limits.responseHeaderBytes,
      ca: options.ca?.read().reveal(),
      clean: answerCleaner({ pass: options.pass.response })
    },
    tools
  )
  const chain = pipeline({ ...options, baseUrl: base.href }, { ...tools, transport: wire, operations: parts.operationsOf(name) })
  const door: Door = {
    upstream: name,
    prefix: `/${name}`,
    base,
    clean: requestCleaner({
      injected: injectedNames(options, config),
      pass: options.pass.request,
      keepAuthorization: (options.credential ?? 'none') === 'none'
    }),
    injected: injectedFields(options),
    credentialOf: credentialSelector(options.credential),
    isTokenService: tokenServiceFinder(base, config),
    operationOf: operationNamer(options),
    send: chain.send,
    upgrade: chain.upgrade,
    // the app is not rehearsed: its side keeps real time
    upload: { bodyBytes: config.limits.bodyBytes, bufferBytes: options.retry.bufferBytes, bodyMs: config.limits.bodyTimeout / tools.clock.realMs(1) }
  }
  function status(): Record<string, unknown> {
    return {
      baseUrl: options.baseUrl,
      agreement: options.agreement,
      policies: chain.policies,
      breaker: chain.breaker.state(),
      cache: { bytes: chain.cache.bytes, entries: chain.cache.entries }
    }
  }
  return { name, options, pipeline: chain, door, status, close: () => wire.close() }
}

function tokenServiceFinder(base: URL, config: Config): (path: string) => boolean {
  const urls = Object.values(config.credentials).flatMap(({ tokenUrl }) => (tokenUrl === undefined ? [] : [new URL(tokenUrl)]))
  const within = urls.filter((url) => url.origin === base.origin && url.pathname.startsWith(base.pathname))
  const paths = new Set(within.map((url) => looselyRead(url.pathname.slice(base.pathname.length - 1))))
  return paths.size === 0 ? () => false : (path) => paths.has(looselyRead(path))
}

// RFC 9110 §10.1.5: who is calling, and whom to ask about it
function injectedFields(options: UpstreamOptions): Fields {
  const contact = options.contact === undefined ? '' : ` (+${options.contact})`
  return [...Object.entries(options.headers).flat(), 'User-Agent', `attache/${VERSION}${contact}`, 'Via', '1.1 attache']
}

function injectedNames(options: UpstreamOptions, config: Config): string[] {
  const choice = options.credential ?? 'none'
  const names = typeof choice === 'string' ? [choice] : choice.map((entry) => entry.credential)
  const headers = names.map((name) => config.credentials[name]?.header).filter((header) => header !== undefined)
  return [...Object.keys(options.headers), ...headers, ...(choice === 'none' ? [] : ['Authorization', 'DPoP'])]
}
