import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { Problem } from '../exchange/problem.ts'
import type { SecretSource } from '../exchange/secret.ts'
import { isNamed, type Fields } from '../http/fields.ts'
import { targetFault } from '../http/target.ts'

export type CheckOptions = {
  /** Host names accepted (DNS rebinding); the port, where one is given, must be ours. */
  readonly allowHosts: readonly string[]
  /** Browser origins accepted; usually none. */
  readonly allowOrigins: readonly string[]
  /** Shared secrets of callers; empty: no proof is asked for. */
  readonly clients: Readonly<Record<string, SecretSource>>
  /** More header lines than these are refused. */
  readonly headerCount: number
}

/** What a request looks like before anything is known about its upstream. */
export type Caller = {
  readonly method: string
  readonly target: string
  readonly fields: Fields
  readonly httpVersion: string
  readonly localPort: number | undefined
}

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
    if (caller.fields.length > 2 * options.headerCount) throw new Problem('headers-too-large', { detail: 'more header lines than limits.headerCount' })
    const said = sayingsOf(caller.fields)
    checkFraming(caller, said)
    checkHost(caller, said, hosts)
    checkBrowser(caller, said, origins)
    if (clients.length > 0) checkClient(said.proof, clients)
    if (caller.method === 'TRACE' || caller.method === 'CONNECT' || caller.method === 'TRACK') {
      throw new Problem('bad-request', {
        status: 405,
        detail: `${caller.method} is never passed on`,
        fields: ['Allow', 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS']
      })
    }
    const fault = targetFault(caller.target)
    if (fault !== undefined) throw new Problem('bad-request', { detail: fault })
    if (said.via !== undefined && isOwnVia(said.via))
      throw new Problem('bad-request', { status: 508, detail: 'the request has passed this proxy before: an upstream points back at it' })
  }
}

/** The fields that decide at the door, values of repeated ones joined (RFC 9110 §5.3): what is said twice matches nothing. */
type Sayings = {
  hosts: number
  host: string | undefined
  lengths: number
  coding: string | undefined
  expect: string | undefined
  origin: string | undefined
  site: string | undefined
  mode: string | undefined
  destination: string | undefined
  preflight: string | undefined
  proof: string | undefined
  via: string | undefined
}

// one pass over the names: the length of a name rules out nearly all others without comparing
function sayingsOf(fields: Fields): Sayings {
  const said: Sayings = {
    hosts: 0,
    host: undefined,
    lengths: 0,
    coding: undefined,
    expect: undefined,
    origin: undefined,
    site: undefined,
    mode: undefined,
    destination: undefined,
    preflight: undefined,
    proof: undefined,
    via: undefined
  }
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string
    const value = fields[i + 1] as string
    switch (name.length) {
      case 3:
        if (isNamed(name, 'via')) said.via = joined(said.via, value)
        break
      case 4:
        if (isNamed(name, 'host')) {
          said.hosts += 1
          said.host = value
        }
        break
      case 6:
        if (isNamed(name, 'origin')) said.origin = joined(said.origin, value)
        else if (isNamed(name, 'expect')) said.expect = joined(said.expect, value)
        break
      case 14:
        if (isNamed(name, 'content-length')) said.lengths += 1
        else if (isNamed(name, 'sec-fetch-site')) said.site = joined(said.site, value)
        else if (isNamed(name, 'sec-fetch-mode')) said.mode = joined(said.mode, value)
        else if (isNamed(name, 'sec-fetch-dest')) said.destination = joined(said.destination, value)
        else if (isNamed(name, 'attache-client')) said.proof = joined(said.proof, value)
        break
      case 17:
        if (isNamed(name, 'transfer-encoding')) said.coding = joined(said.coding, value)
        break
      case 29:
        if (isNamed(name, 'access-control-request-method')) said.preflight = value
        break
      default:
    }
  }
  return said
}

function joined(earlier: string | undefined, value: string): string {
  return earlier === undefined ? value : `${earlier}, ${value}`
}

function checkFraming(caller: Caller, { lengths, coding, expect }: Sayings): void {
  if (caller.httpVersion !== '1.1' && caller.httpVersion !== '1.0')
    throw new Problem('bad-request', { status: 505, detail: 'only HTTP/1.1 and HTTP/1.0 are spoken here' })
  if (lengths > 1) throw new Problem('bad-request', { detail: 'more than one Content-Length' })
  if (coding !== undefined && (lengths > 0 || caller.httpVersion === '1.0' || coding.toLowerCase() !== 'chunked'))
    throw new Problem('bad-request', { detail: 'ambiguous Transfer-Encoding' })
  if (expect !== undefined && expect.toLowerCase() !== '100-continue')
    throw new Problem('bad-request', { status: 417, detail: 'the only expectation met here is 100-continue' })
}

function checkHost(caller: Caller, { host, hosts: count }: Sayings, hosts: ReadonlySet<string>): void {
  if (host === undefined || count > 1) throw new Problem('host-not-allowed', { status: 400, detail: 'exactly one Host is needed' })
  if (!isAllowedHost(host.toLowerCase(), hosts, caller.localPort)) {
    throw new Problem('host-not-allowed', { detail: 'this Host is not one of ours; add it to allowHosts if the app should use it' })
  }
}

function isAllowedHost(host: string, hosts: ReadonlySet<string>, localPort: number | undefined): boolean {
  if (hosts.has(host)) return true
  const colon = host.lastIndexOf(':')
  if (colon === -1 || !hosts.has(host.slice(0, colon))) return false
  const port = host.slice(colon + 1)
  // on a unix socket there is no port to compare
  return localPort === undefined ? /^\d{1,5}$/.test(port) : port === String(localPort)
}

// what documents are loaded into; anything else a page asks for says which site it is from
const BROWSED = /navigate|document|frame|embed|object/i

function checkBrowser(caller: Caller, said: Sayings, origins: ReadonlySet<string>): void {
  if (said.origin !== undefined) {
    if (origins.has(said.origin.toLowerCase())) return
    throw new Problem('origin-not-allowed', { detail: 'this Origin is not in allowOrigins' })
  }
  const { site, mode, destination } = said
  // whatever browsers may say one day, only these two are no other site
  if (site !== undefined && site !== 'none' && site !== 'same-origin') throw new Problem('origin-not-allowed', { detail: 'requests of web pages are refused' })
  if ((mode !== undefined && BROWSED.test(mode)) || (destination !== undefined && BROWSED.test(destination)))
    throw new Problem('origin-not-allowed', { detail: 'this is not a place to browse' })
  if (caller.method === 'OPTIONS' && said.preflight !== undefined) throw new Problem('origin-not-allowed', { detail: 'preflight requests end here' })
}

function checkClient(proof: string | undefined, clients: readonly SecretSource[]): void {
  const given = digest(proof ?? '')
  let isKnown = false
  // every secret is compared, so that the time taken tells nothing
  for (const client of clients) isKnown = timingSafeEqual(given, digest(client.read().reveal())) || isKnown
  if (proof === undefined || !isKnown) throw new Problem('client-not-allowed', { detail: 'send the shared secret as Attache-Client' })
}

function isOwnVia(via: string): boolean {
  return /(?:^|[\s,])(?:[^\s,]+\s+)attache(?:\s|,|$)/i.test(via)
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}
