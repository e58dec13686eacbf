import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { Problem } from '../exchange/problem.ts'
import type { SecretSource } from '../exchange/secret.ts'
import { field, fieldList, fieldValues, type Fields } from '../http/fields.ts'
import { targetFault } from '../http/target.ts'

export type CheckOptions = {
  /** Host names accepted (DNS rebinding); the port, where one is given, must be ours. */
  readonly allowHosts: readonly string[]
  /** Browser origins accepted; usually none. */
  readonly allowOrigins: readonly string[]
  /** Shared secrets of callers; empty: no proof is asked for. */
  readonly clients: Readonly<Record<string, SecretSource>>
}

/** What a request looks like before anything is known about its upstream. */
export type Caller = {
  readonly method: string
  readonly target: string
  readonly fields: Fields
  readonly httpVersion: string
  readonly localPort: number | undefined
}

const MAX_HEADER_LINES = 500

export function callerOf(message: IncomingMessage): Caller {
  return {
    method: message.method ?? '',
    target: message.url ?? '',
    fields: message.rawHeaders,
    httpVersion: message.httpVersion,
    localPort: message.socket.localPort
  }
}

/**
 * Decides whether to listen to a caller at all: anyone who can make the sidecar accept a request acts with the company's
 * credentials, and every page in a local browser can reach localhost. Throws the problem that says no.
 */
export function checks(options: CheckOptions): (caller: Caller) => void {
  const hosts = new Set(options.allowHosts.map((host) => host.toLowerCase()))
  const origins = new Set(options.allowOrigins.map((origin) => origin.toLowerCase()))
  const clients = Object.values(options.clients)

  return function check(caller) {
    if (caller.fields.length > 2 * MAX_HEADER_LINES) throw new Problem('headers-too-large', { detail: `more than ${MAX_HEADER_LINES} header lines` })
    checkFraming(caller)
    checkHost(caller, hosts)
    checkBrowser(caller, origins)
    if (clients.length > 0) checkClient(caller, clients)
    if (caller.method === 'TRACE' || caller.method === 'CONNECT' || caller.method === 'TRACK') {
      throw new Problem('bad-request', {
        status: 405,
        detail: `${caller.method} is never passed on`,
        fields: ['Allow', 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS']
      })
    }
    const fault = targetFault(caller.target)
    if (fault !== undefined) throw new Problem('bad-request', { detail: fault })
    if (hasOwnVia(caller.fields))
      throw new Problem('bad-request', { status: 508, detail: 'the request has passed this proxy before: an upstream points back at it' })
  }
}

function checkFraming(caller: Caller): void {
  if (caller.httpVersion !== '1.1' && caller.httpVersion !== '1.0')
    throw new Problem('bad-request', { status: 505, detail: 'only HTTP/1.1 and HTTP/1.0 are spoken here' })
  const lengths = fieldValues(caller.fields, 'content-length')
  const codings = fieldList(caller.fields, 'transfer-encoding')
  if (lengths.length > 1) throw new Problem('bad-request', { detail: 'more than one Content-Length' })
  if (codings !== undefined && (lengths.length > 0 || codings.toLowerCase() !== 'chunked'))
    throw new Problem('bad-request', { detail: 'ambiguous Transfer-Encoding' })
}

function checkHost(caller: Caller, hosts: ReadonlySet<string>): void {
  const values = fieldValues(caller.fields, 'host')
  const [host] = values
  if (host === undefined || values.length > 1) throw new Problem('bad-request', { detail: 'exactly one Host is needed' })
  if (!isAllowedHost(host.toLowerCase(), hosts, caller.localPort)) {
    throw new Problem('host-not-allowed', { detail: 'this Host is not one of ours; add it to allowHosts if the app should use it' })
  }
}

function isAllowedHost(host: string, hosts: ReadonlySet<string>, localPort: number | undefined): boolean {
  if (hosts.has(host)) return true
  const parts = /^(.*?)(?::(\d+))?$/.exec(host)
  const name = parts?.[1] ?? host
  const port = parts?.[2]
  if (!hosts.has(name)) return false
  // on a unix socket there is no port to compare
  return port === undefined || localPort === undefined || Number(port) === localPort
}

function checkBrowser(caller: Caller, origins: ReadonlySet<string>): void {
  const origin = field(caller.fields, 'origin')
  const isListed = origin !== undefined && origins.has(origin.toLowerCase())
  if (origin !== undefined && !isListed) throw new Problem('origin-not-allowed', { detail: 'this Origin is not in allowOrigins' })
  if (isListed) return
  const site = field(caller.fields, 'sec-fetch-site')
  if (site === 'cross-site' || site === 'same-site') throw new Problem('origin-not-allowed', { detail: 'requests of web pages are refused' })
  if (field(caller.fields, 'sec-fetch-mode') === 'navigate' || field(caller.fields, 'sec-fetch-dest') === 'document') {
    throw new Problem('origin-not-allowed', { detail: 'this is not a place to browse' })
  }
  if (caller.method === 'OPTIONS' && field(caller.fields, 'access-control-request-method') !== undefined) {
    throw new Problem('origin-not-allowed', { detail: 'preflight requests end here' })
  }
}

function checkClient(caller: Caller, clients: readonly SecretSource[]): void {
  const proofs = fieldValues(caller.fields, 'attache-client')
  const [proof] = proofs
  const given = digest(proof ?? '')
  let isKnown = false
  // every secret is compared, so that the time taken tells nothing
  for (const client of clients) isKnown = timingSafeEqual(given, digest(client.read().reveal())) || isKnown
  if (proofs.length !== 1 || !isKnown) throw new Problem('client-not-allowed', { detail: 'send the shared secret as Attache-Client' })
}

function hasOwnVia(fields: Fields): boolean {
  const via = fieldList(fields, 'via')
  return via !== undefined && /(?:^|[\s,])(?:[^\s,]+\s+)attache(?:\s|,|$)/i.test(via)
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}
