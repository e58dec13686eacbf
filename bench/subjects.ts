/** Everything that is measured: who, how to start it, and below which path it serves the origin's answers. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { AUTHORIZED_PREFIX, OPEN_PREFIX } from './answers.ts'
import { caddy } from './peers/caddy.ts'
import { haproxy } from './peers/haproxy.ts'
import { nginxProxy } from './peers/nginx.ts'
import { installed } from './process.ts'

/** Where things are during one run. */
export type Place = { readonly folder: string; readonly origin: string; readonly tokenService: string; readonly profile: boolean; readonly main: string }

export type Subject = {
  readonly name: string
  readonly what: string
  /** The program it needs; named as missing where it is not installed. */
  readonly needs?: string
  /** The command that serves on `port`, and the path prefix its answers are below. */
  command(place: Place, port: number, adminPort: number): string[]
  readonly prefix: string
}

export const ATTACHE: Subject = {
  name: 'attache',
  what: 'every policy on: token, volume, retry, breaker, cache, metrics, access log to a file',
  prefix: '/bench/',
  command(place, port, adminPort) {
    return attache(place, port, adminPort, 1)
  }
}

const bareNode: Subject = {
  name: 'bare-node',
  what: 'node:http and undici, no policies: the limit of Node',
  prefix: OPEN_PREFIX,
  command: (place, port) => peer('bare-node.ts', port, place)
}

const plainHttpProxy: Subject = {
  name: 'http-proxy',
  what: '@fastify/http-proxy with its defaults',
  prefix: OPEN_PREFIX,
  command: (place, port) => peer('http-proxy.ts', port, place)
}

const undiciCache: Subject = {
  name: 'undici-cache',
  what: '@fastify/http-proxy over undici’s cache interceptor',
  prefix: OPEN_PREFIX,
  command: (place, port) => [...peer('http-proxy.ts', port, place), '--cache']
}

const nginx: Subject = {
  name: 'nginx',
  what: 'proxy_pass with keep-alive',
  needs: 'nginx',
  prefix: OPEN_PREFIX,
  command: (place, port) => nginxProxy(join(place.folder, 'nginx'), port, place.origin, false)
}

const nginxCache: Subject = {
  name: 'nginx-cache',
  what: 'proxy_cache',
  needs: 'nginx',
  prefix: OPEN_PREFIX,
  command: (place, port) => nginxProxy(join(place.folder, 'nginx-cache'), port, place.origin, true)
}

const haproxyPeer: Subject = {
  name: 'haproxy',
  what: 'one thread, http-reuse always',
  needs: 'haproxy',
  prefix: OPEN_PREFIX,
  command: (place, port) => haproxy(join(place.folder, 'haproxy'), port, place.origin)
}

const caddyPeer: Subject = {
  name: 'caddy',
  what: 'reverse_proxy',
  needs: 'caddy',
  prefix: OPEN_PREFIX,
  command: (place, port) => caddy(join(place.folder, 'caddy'), port, place.origin)
}

/** Answers that may not be cached. */
export const PASS_THROUGH: readonly Subject[] = [nginx, haproxyPeer, caddyPeer, bareNode, plainHttpProxy, ATTACHE]
/** Answers that are all in the cache. */
export const CACHE_HITS: readonly Subject[] = [nginxCache, undiciCache, ATTACHE]
/** Answers of 1 MB. */
export const LARGE_ANSWERS: readonly Subject[] = [nginx, bareNode, plainHttpProxy, ATTACHE]
/** Latency at a fixed rate. */
export const LATENCY: readonly Subject[] = [nginx, plainHttpProxy, ATTACHE]

export function missing(subject: Subject): boolean {
  return subject.needs !== undefined && !installed(subject.needs)
}

/** The sidecar with `upstreams` of them configured; the first is `bench`. */
export function attache(place: Place, port: number, adminPort: number, upstreams: number, maxBytes = '512MiB'): string[] {
  const folder = join(place.folder, `attache-${port}`)
  mkdirSync(folder, { recursive: true })
  const file = join(folder, 'attache.yaml')
  writeFileSync(file, attacheConfig(place, port, adminPort, upstreams, maxBytes))
  const profiling = place.profile ? ['--cpu-prof', `--cpu-prof-dir=${join(place.folder, 'profiles')}`] : []
  return [process.execPath, ...profiling, place.main, 'run', '--config', file]
}

function attacheConfig(place: Place, port: number, adminPort: number, upstreams: number, maxBytes: string): string {
  const names = ['bench', ...Array.from({ length: upstreams - 1 }, (_none, at) => `other-${at}`)]
  return `version: 1
listen: 127.0.0.1:${port}
admin: { listen: 127.0.0.1:${adminPort} }
state: sqlite:./state.db
log: { level: info }
credentials:
  bench:
    grant: client_credentials
    tokenUrl: ${place.tokenService}/token
    clientId: bench
    clientSecret: bench-secret
    clientAuth: client_secret_basic
upstreams:
${names
  .map(
    (name) => `  ${name}:
    baseUrl: ${place.origin}${AUTHORIZED_PREFIX}
    credential: bench
    operations: { allow: ["GET /small", "GET /large", "GET /cached/**"] }
    volume: { limits: ["1000000000/1m", "10000000000/1h"], concurrency: 128 }
    cache: { maxBytes: ${maxBytes} }
`
  )
  .join('')}`
}

function peer(file: string, port: number, place: Place): string[] {
  return [process.execPath, join(import.meta.dirname, 'peers', file), String(port), place.origin]
}
