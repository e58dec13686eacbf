/**
 * The whole configuration (contract §2), assembled from the option schemas that the rooms export. The published JSON
 * Schema, the types below and the decoding all derive from this one value.
 */
import {
  choice,
  date,
  duration,
  either,
  flag,
  integer,
  list,
  listenAddress,
  map,
  optional,
  route,
  secret,
  section,
  size,
  text,
  textLike,
  type Decoded
} from '../exchange/options.ts'
import { asyncOptions } from '../operations/options.ts'
import { breakerOptions } from '../policies/breaker.ts'
import { cacheOptions } from '../policies/cache/cache.ts'
import { timeoutOptions } from '../policies/deadline.ts'
import { waitDefaultOptions } from '../policies/gate.ts'
import { operationsOptions } from '../policies/guard.ts'
import { leaseRule } from '../policies/leases.ts'
import { retryOptions } from '../policies/retry.ts'
import { volumeOptions } from '../policies/volume.ts'
import { credentialOptions } from '../tokens/credentials.ts'
import { enumerationOptions, lifecycleRule, spendRule } from './sections.ts'

/** The version of the config format this Attache reads. */
export const CONFIG_VERSION = 1

const waiver = section('A bound of the agreement that does not apply for a while', {
  clause: text('The clause, e.g. IA-13'),
  reason: text('Who agreed to it and how'),
  until: date('Last day')
})

const credentialByPath = section('A credential for the operations that match; the first that matches serves', {
  match: optional(route('METHOD /template; without it, everything')),
  credential: text('Name of a credential, or none')
})

export const upstreamOptions = section('A provider’s API', {
  baseUrl: text('Where the provider’s API begins'),
  agreement: optional(text('Name of a shipped agreement, or a path to one: defaults and bounds for this upstream')),
  credential: optional(
    either('Name of a credential, none (the default), or a list by path', text('Name of a credential, or none'), list('By path', credentialByPath))
  ),
  headers: map('Set on every call to this upstream', text('Value'), {}),
  listen: optional(listenAddress('A port of its own, mounted at /')),
  ca: optional(secret('file: with PEM certificates of a private certification authority, trusted for this upstream only')),
  contact: optional(text('Mail address or URL named in User-Agent')),
  timeout: timeoutOptions,
  retry: retryOptions,
  breaker: breakerOptions,
  waitDefault: waitDefaultOptions,
  cache: cacheOptions,
  leases: list('Temporary secrets that are kept, sealed, for most of their validity', leaseRule, []),
  volume: volumeOptions,
  operations: section('Which operations of the provider the app may use', { ...operationsOptions.properties, enumeration: optional(enumerationOptions) }, {}),
  lifecycle: list('Operations on their way out', lifecycleRule, []),
  spend: list('Paid operations and their budgets', spendRule, []),
  async: asyncOptions,
  pass: section(
    'Exceptions to the header fields that are removed',
    {
      request: list('Request fields that may pass', text('Field name'), []),
      response: list('Response fields that may pass', text('Field name'), [])
    },
    {}
  ),
  waivers: list('Bounds of the agreement that do not apply', waiver, [])
})

export const configSchema = section('Configuration of Attache', {
  version: integer('Version of this format', { minimum: CONFIG_VERSION, maximum: CONFIG_VERSION }, CONFIG_VERSION),
  listen: listenAddress('The app’s side: HOST:PORT or unix:/path', '127.0.0.1:7600'),
  admin: section(
    'Health, metrics, status page and admin API',
    {
      listen: listenAddress('HOST:PORT or unix:/path', '127.0.0.1:7601'),
      token: optional(secret('Bearer token for the admin API on an address that is not loopback'))
    },
    {}
  ),
  state: textLike(
    'What has to survive restarts: memory: | sqlite:PATH | redis://HOST:PORT/DB',
    '^(?:memory:|sqlite:.+|rediss?://.+)$',
    'sqlite:./var/attache.db'
  ),
  stateKey: optional(secret('Seals answers kept in the state; by default a key beside the sqlite file, or derived from the credentials with redis')),
  allowHosts: list('Host names accepted on the data port', text('Host name'), ['localhost', '127.0.0.1', '[::1]']),
  allowOrigins: list('Origins of browser pages that may call', text('Origin'), []),
  allowRemote: flag('Listen on an address that is not loopback without clients', false),
  clients: map('Callers and the shared secrets they send as Attache-Client; none listed, every local caller may call', secret('Shared secret'), {}),
  log: section('The log', { level: choice('Least severity written', ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'], 'info') }, {}),
  limits: section(
    'What the data port accepts, and how long it waits for it',
    {
      headerBytes: size('A request header', '16KiB'),
      headerCount: integer('Fields of a request header', { minimum: 10, maximum: 2000 }, 200),
      bodyBytes: size('A request body', '100MiB'),
      responseHeaderBytes: size('A provider’s answer header', '64KiB'),
      connections: integer('Connections of callers at once', { minimum: 1 }, 2000),
      headerTimeout: duration('From a connection’s first byte to the end of the request header', '10s'),
      bodyTimeout: duration('From the first byte to the end of the request body', '60s'),
      keepAlive: duration('An idle connection of a caller is kept this long', '72s')
    },
    {}
  ),
  drain: duration('Requests under way may take this long to end after SIGTERM', '30s'),
  credentials: map('How Attache proves who you are, by name', credentialOptions, {}),
  upstreams: map('The providers, by path prefix', upstreamOptions, {})
})

export type Config = Decoded<typeof configSchema>
export type UpstreamOptions = Decoded<typeof upstreamOptions>
export type CredentialChoice = UpstreamOptions['credential']
export type Waiver = Decoded<typeof waiver>
export type LimitsOptions = Config['limits']
export type PassOptions = UpstreamOptions['pass']
