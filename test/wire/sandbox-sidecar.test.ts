import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generateKeyPairSync } from 'node:crypto'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openSandbox } from '../../sandbox/main.ts'
import type { Sandbox } from '../../sandbox/server.ts'
import { testSidecar, type TestSidecar } from '../support/sidecar.ts'
import { steadyTime, type SteadyTime } from '../support/steady-time.ts'
import { TENANT } from './sandbox-support.ts'

const SPEED = 40
const KEYS = generateKeyPairSync('ec', {
  namedCurve: 'P-256',
  publicKeyEncoding: { type: 'spki', format: 'pem' },
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' }
})

let time: SteadyTime
let sandbox: Sandbox
let sidecar: TestSidecar
let folder: string

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'attache-sandbox-'))
  time = steadyTime()
  sandbox = await openSandbox({ port: 0, clock: time.sandboxClock(SPEED), keys: [KEYS.publicKey] })
  sidecar = await start()
})
afterEach(async () => {
  time.go()
  await sidecar.stop()
  await sandbox.close()
  time.close()
  rmSync(folder, { recursive: true, force: true })
})

function start(): Promise<TestSidecar> {
  return testSidecar(
    `
state: sqlite:./state.db
credentials:
  info: { grant: client_credentials, tokenUrl: ${sandbox.url}/info-subscription/token, clientId: info-demo, clientSecret: '\${SECRET}', clientAuth: client_secret_post, scope: https://sandbox.example/api/.default }
  partner: { grant: client_credentials, issuer: ${sandbox.url}/integration, clientId: integration-demo, clientAuth: private_key_jwt, key: '\${KEY}' }
upstreams:
  info: { baseUrl: ${sandbox.url}/info-subscription/api/, agreement: info-subscription, credential: info, headers: { S4-TenantId: ${TENANT} }, timeout: { connect: 20s, response: 60s, total: 300s } }
  partner: { baseUrl: ${sandbox.url}/integration/api/, agreement: integration-agreement, credential: partner, timeout: { connect: 20s, response: 60s, total: 300s } }
`,
    { speed: SPEED, time, folder, environment: { SECRET: 'info-secret', KEY: KEYS.privateKey } }
  )
}

async function ask(path: string, init: RequestInit = {}): Promise<number> {
  const response = await fetch(`${sidecar.dataUrl}${path}`, init)
  await response.arrayBuffer()
  return response.status
}

async function arm(fault: Record<string, unknown>): Promise<void> {
  expect((await fetch(`${sandbox.url}/faults`, { method: 'POST', body: JSON.stringify(fault) })).status).toBe(201)
}

function violations(): string[] {
  sandbox.settle()
  return sandbox.ledger.snapshot().violations.map(({ rule, provider, detail }) => `${provider} ${rule} ${detail}`)
}

describe('a sidecar before the strict providers', () => {
  it('requests one token for 200 calls at once from a cold start', async () => {
    const statuses = await Promise.all(Array.from({ length: 200 }, (_, index) => ask(`/partner/customers/c${index + 1}`)))
    expect(new Set(statuses)).toEqual(new Set([200]))
    expect(sandbox.ledger.counts('integration').tokenRequests).toBe(1)
    expect(violations()).toEqual([])
  })

  it('requests no token after a restart', async () => {
    await ask('/info/products')
    for (let round = 0; round < 3; round++) {
      await sidecar.stop()
      sidecar = await start()
      expect(await ask(`/info/subscribers/${round + 1}`)).toBe(200)
    }
    expect(sandbox.ledger.counts('info-subscription').tokenRequests).toBe(1)
    expect(violations()).toEqual([])
  })

  it('renews once for a revoked token that 50 calls bear', async () => {
    await ask('/info/products')
    await arm({ provider: 'info-subscription', kind: 'revoke-token' })
    const statuses = await Promise.all(Array.from({ length: 50 }, (_, index) => ask(`/info/subscribers/${index + 1}`)))
    expect(new Set(statuses)).toEqual(new Set([200]))
    expect(sandbox.ledger.counts('info-subscription').tokenRequests).toBe(2)
    expect(violations()).toEqual([])
  })

  it('does not loop where every answer is 401', async () => {
    await arm({ provider: 'info-subscription', kind: 'status', status: 401, times: 'always' })
    time.stop()
    // minute after minute: the token the caller came with, and one renewal in each
    for (const tokenRequests of [2, 3, 4]) {
      for (let round = 0; round < 30; round++) expect(await ask(`/info/subscribers/${round + 1}`)).toBe(401)
      expect(sandbox.ledger.counts('info-subscription').tokenRequests).toBe(tokenRequests)
      time.pass((61 / SPEED) * 1000)
    }
    expect(violations()).toEqual([])
  })

  it('sends a POST once, whatever becomes of it', async () => {
    const statuses = []
    for (const [index, kind] of ['reset-before-header', 'reset-after-read', 'garbage', 'truncate'].entries()) {
      await arm({ provider: 'integration', kind })
      statuses.push(
        await ask('/partner/receipts', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ index }) }).catch(
          () => 'cut off'
        )
      )
    }
    expect(statuses).toEqual([502, 502, 502, 502])
    expect(sandbox.ledger.counts('integration').apiCalls).toBe(4)
    expect(violations()).toEqual([])
  })

  it('keeps a whole upstream quiet for Retry-After, as seconds and as a date', async () => {
    for (const retryAfter of [15, 'date:15']) {
      await arm({ provider: 'integration', kind: 'status', status: 429, retryAfter })
      const first = ask('/partner/customers/c1')
      await first
      await Promise.all([2, 3, 4].map((n) => ask(`/partner/customers/c${n}`)))
      await ask('/partner/customers/c1', { method: 'PUT' })
    }
    expect(violations()).toEqual([])
  })

  it('breaks no clause that would cost its access in four minutes of chaos', { timeout: 120_000 }, async () => {
    const until = time.now() + 6000
    const random = seeded(7)
    const answers = new Map<number, number>()
    async function user(): Promise<void> {
      for (let call = 0; time.now() < until; call++) {
        const status = await anything(random, call)
        answers.set(status, (answers.get(status) ?? 0) + 1)
        await time.sleep(random() * 60)
      }
    }
    async function mischief(): Promise<void> {
      while (time.now() < until - 1000) {
        await arm(anyFault(random))
        await time.sleep(300 + random() * 400)
      }
    }
    await Promise.all([mischief(), ...Array.from({ length: 8 }, user)])
    sandbox.settle()
    const grave = sandbox.ledger.snapshot().violations.filter(({ severity }) => severity === 'S1')
    expect(grave).toEqual([])
    // it was a day with work done in it
    expect(answers.get(200)).toBeGreaterThan(50)
  })
})

type Random = () => number

/** Numbers in [0, 1) that come in the same order every time. */
function seeded(seed: number): Random {
  let state = seed
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
    return state / 2_147_483_648
  }
}

function pick<Item>(random: Random, items: readonly [Item, ...Item[]]): Item {
  return items[Math.floor(random() * items.length)] ?? items[0]
}

/** Any of the things an app does. */
function anything(random: Random, call: number): Promise<number> {
  const id = Math.floor(random() * 150) + 1
  const body = { headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ call: `${call}-${random()}`, name: 'N', subscriber: id }) }
  const path = pick(random, [
    'GET /info/subscribers/#',
    'GET /partner/customers/c#',
    'GET /partner/customers/x#',
    'GET /info/products',
    'PUT /partner/customers/c#',
    'PUT /info/subscribers/#',
    'POST /partner/receipts',
    'POST /info/orders'
  ])
  const [method = 'GET', template = ''] = path.split(' ')
  return ask(template.replace('#', String(id)), method === 'GET' ? {} : { method, ...body })
}

/** Any of the things that go wrong. */
function anyFault(random: Random): Record<string, unknown> {
  const provider = pick(random, ['integration', 'info-subscription'])
  const kind = pick(random, ['status', 'status', 'reset-before-header', 'reset-after-read', 'truncate', 'delay', 'slow-body', 'garbage', 'hang'])
  if (kind !== 'status') return { provider, kind, delay: 1 }
  const status = pick(random, [401, 403, 429, 500, 502, 503])
  return {
    provider,
    kind,
    status,
    times: pick(random, [1, 2, 5]),
    ...(status === 429 || status === 503 ? { retryAfter: pick(random, [5, 20, 'date:30']) } : {})
  }
}
