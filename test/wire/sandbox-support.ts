import { generateKeyPairSync, randomUUID, sign, type KeyObject } from 'node:crypto'
import { Agent, request } from 'node:http'
import { thumbprint } from '../../sandbox/assertion.ts'
import type { SandboxClock } from '../../sandbox/clock.ts'
import { infoSubscription } from '../../sandbox/providers/info-subscription.ts'
import { integration } from '../../sandbox/providers/integration.ts'
import { startSandbox, type Sandbox } from '../../sandbox/server.ts'
import type { ProviderPlan } from '../../sandbox/call.ts'

export const TENANT = 'e02d3360-8a5f-4115-8ef1-6d5f0c2b7a11'
export const SCOPE = 'https://sandbox.example/api/.default'

/** Provider time that stands still until told to pass, but for the millisecond each answer takes. */
export type StillClock = SandboxClock & {
  pass(ms: number): void
  /** How many timers wait for time to pass. */
  pending(): number
  /** None of the next `count` calls is answered before all of them have arrived, however long one is on its way. */
  together(count: number): void
  /** Lets every connection that is open lie idle for as long as the sandbox would wait. */
  lieIdle(): void
}

// what the bench has every call take
const SERVICE_MS = 2
// real waits this long are for connections that lie idle
const IDLE_MS = 60_000

export function stillClock(): StillClock {
  let now = 0
  let missing = 0
  const held: (() => void)[] = []
  const timers = new Set<{ at: number; fire: () => void }>()
  const idle = new Set<() => void>()
  return {
    speed: 1,
    now: () => now,
    wallNow: () => Date.now(),
    after(ms, fire) {
      const timer = { at: now + ms, fire }
      timers.add(timer)
      return { cancel: () => void timers.delete(timer) }
    },
    afterReal(ms, fire) {
      if (ms >= IDLE_MS) {
        idle.add(fire)
        return { cancel: () => void idle.delete(fire) }
      }
      const answer = (): void => {
        now++
        fire()
      }
      if (ms === SERVICE_MS && missing > 0) {
        held.push(answer)
        missing--
        if (missing === 0) for (const each of held.splice(0)) each()
        return { cancel: () => undefined }
      }
      const timer = setTimeout(answer, ms).unref()
      return { cancel: () => clearTimeout(timer) }
    },
    together(count) {
      missing = count
    },
    lieIdle() {
      for (const fire of idle) fire()
      idle.clear()
    },
    pending: () => timers.size,
    pass(ms) {
      now += ms
      for (const timer of timers) {
        if (timer.at > now) continue
        timers.delete(timer)
        timer.fire()
      }
    }
  }
}

export type Reply = { status: number; headers: Record<string, string | string[] | undefined>; body: string }

/** One connection to the sandbox that sends exactly what it is told, nothing added. */
export type Wire = {
  send(method: string, path: string, headers?: Record<string, string | string[]>, body?: string): Promise<Reply>
  close(): void
}

export function wire(port: number): Wire {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  return {
    close: () => agent.destroy(),
    send: (method, path, headers = {}, body) =>
      new Promise((resolve, reject) => {
        const outgoing = request({
          agent,
          host: '127.0.0.1',
          port,
          method,
          path,
          headers: { ...headers, ...(body === undefined ? {} : { 'Content-Length': String(Buffer.byteLength(body)) }) }
        })
        outgoing.on('error', reject)
        outgoing.on('response', (incoming) => {
          const pieces: Buffer[] = []
          incoming.on('data', (piece: Buffer) => pieces.push(piece))
          incoming.on('error', reject)
          incoming.on('end', () => resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, body: Buffer.concat(pieces).toString() }))
        })
        outgoing.end(body)
      })
  }
}

export type Bench = {
  sandbox: Sandbox
  clock: StillClock
  keys: { publicKey: KeyObject; privateKey: KeyObject }
  /** A fresh connection. */
  connect(): Wire
  /** Ends every connection; resolves when the sandbox knows. */
  hangUp(): Promise<void>
  /** The ids of the clauses broken so far, each once, sorted. */
  broken(provider?: string): string[]
  details(): string[]
  close(): Promise<void>
}

/** The sandbox with its clock standing still and one registered key. */
export async function openBench(plans: readonly ProviderPlan[] = []): Promise<Bench> {
  const clock = stillClock()
  const keys = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const pem = keys.publicKey.export({ type: 'spki', format: 'pem' }).toString()
  const sandbox = await startSandbox({
    port: 0,
    clock,
    latencyMs: 100,
    serviceMs: SERVICE_MS,
    providers: [infoSubscription(), integration({ keys: [pem] }), ...plans]
  })
  const wires: Wire[] = []
  return {
    sandbox,
    clock,
    keys,
    connect() {
      const opened = wire(sandbox.port)
      wires.push(opened)
      return opened
    },
    async hangUp() {
      for (const opened of wires) opened.close()
      while (sandbox.connections() > 0) await new Promise((resolve) => setImmediate(resolve))
    },
    broken(provider) {
      sandbox.settle()
      const { violations } = sandbox.ledger.snapshot()
      return [...new Set(violations.filter((violation) => provider === undefined || violation.provider === provider).map(({ rule }) => rule))].toSorted()
    },
    details: () => sandbox.ledger.snapshot().violations.map(({ rule, detail }) => `${rule} ${detail}`),
    async close() {
      for (const opened of wires) opened.close()
      await sandbox.close()
    }
  }
}

export const INFO = '/info-subscription/api'
export const PARTNER = '/integration/api'
export const JSON_BODY = { 'Content-Type': 'application/json' }
export const FORM = { 'Content-Type': 'application/x-www-form-urlencoded' }

/** What a well-behaved sidecar sends with every call. */
export const MANNERS = { 'User-Agent': 'attache/test', Via: '1.1 attache', Accept: 'application/json' }

export function infoForm(changes: Record<string, string> = {}): string {
  return new URLSearchParams({ grant_type: 'client_credentials', client_id: 'info-demo', client_secret: 'info-secret', scope: SCOPE, ...changes }).toString()
}

export async function infoToken(on: Wire): Promise<string> {
  return accessToken(await on.send('POST', '/info-subscription/token', FORM, infoForm()))
}

export function accessToken(reply: Reply): string {
  return /"access_token":"([^"]+)"/.exec(reply.body)?.[1] ?? ''
}

export function infoHeaders(token: string): Record<string, string> {
  return { ...MANNERS, Authorization: `Bearer ${token}`, 'S4-TenantId': TENANT }
}

export type AssertionChanges = { header?: Record<string, unknown>; claims?: Record<string, unknown>; key?: KeyObject }

/** A client assertion as the agreement wants it, with changes to make it wrong. */
export function assertion(bench: Bench, changes: AssertionChanges = {}): string {
  const now = Math.floor(Date.now() / 1000)
  const header = { alg: 'ES256', typ: 'JWT', kid: thumbprint(bench.keys.publicKey), ...changes.header }
  const claims = {
    iss: 'integration-demo',
    sub: 'integration-demo',
    aud: `http://127.0.0.1:${bench.sandbox.port}/integration`,
    iat: now,
    exp: now + 60,
    jti: randomUUID(),
    ...changes.claims
  }
  const input = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')
  const signature = sign('sha256', Buffer.from(input), { key: changes.key ?? bench.keys.privateKey, dsaEncoding: 'ieee-p1363' })
  return `${input}.${signature.toString('base64url')}`
}

export function integrationForm(jwt: string, changes: Record<string, string> = {}): string {
  return new URLSearchParams({
    grant_type: 'client_credentials',
    client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
    client_assertion: jwt,
    ...changes
  }).toString()
}

export async function integrationToken(bench: Bench, on: Wire): Promise<string> {
  return accessToken(await on.send('POST', '/integration/token', FORM, integrationForm(assertion(bench))))
}

export function integrationHeaders(token: string): Record<string, string> {
  return { ...MANNERS, Authorization: `Bearer ${token}` }
}

/** Arms a fault. */
export async function arm(on: Wire, fault: Record<string, unknown>): Promise<Reply> {
  return on.send('POST', '/faults', { 'Content-Type': 'application/json' }, JSON.stringify(fault))
}
