import { generateKeyPairSync } from 'node:crypto'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openSandbox } from '../../sandbox/main.ts'
import { origin, type Origin } from '../support/origin.ts'
import { sidecarHome, type SidecarHome, type SidecarProcess } from '../support/process.ts'
import { testSidecar } from '../support/sidecar.ts'
import { steadyTime } from '../support/steady-time.ts'

let server: Origin
let home: SidecarHome

beforeEach(async () => {
  let issued = 0
  server = await origin((received, response) => {
    if (received.url !== '/api/connection-string') return void response.writeHead(503).end()
    const end = Math.floor(Date.now() / 1000) + 3600
    response.writeHead(200, { 'Content-Type': 'application/json', 'Cache-Control': 'no-store' })
    return void response.end(JSON.stringify({ sas: `https://blob.example/?se=${end}&sig=CANARY-${++issued}` }))
  })
  home = sidecarHome(
    `
state: sqlite:./state/attache.db
log: { level: trace }
credentials:
  key: { grant: static, header: X-Api-Key, value: "\${KEY}" }
upstreams:
  up:
    baseUrl: "${server.url}/api"
    credential: key
    leases: [{ match: GET /connection-string, expires: sas }]
`,
    { KEY: 'api-key-1' }
  )
})
afterEach(async () => {
  await home.remove()
  await server.close()
})

async function ask(sidecar: SidecarProcess, headers: Record<string, string> = {}): Promise<{ text: string; cache: string | null; attempts: string | null }> {
  const response = await fetch(`${sidecar.dataUrl}/up/connection-string`, { headers })
  expect(response.status).toBe(200)
  return { text: await response.text(), cache: response.headers.get('cache-status'), attempts: response.headers.get('attache-attempts') }
}

describe('a leased secret', () => {
  it('is asked for once by sidecars that are killed and started again, and is nowhere in the clear', { timeout: 180_000 }, async () => {
    let output = ''
    let first: string | undefined
    for (let life = 0; life < 4; life++) {
      const sidecar = await home.start()
      const answers = [await ask(sidecar), ...(await Promise.all([ask(sidecar), ask(sidecar)]))]
      first ??= answers[0]?.text
      expect(answers.map((answer) => answer.text)).toEqual([first, first, first])
      expect(answers.at(-1)).toMatchObject({ cache: 'attache; hit; detail=lease', attempts: '0' })
      expect(await (await fetch(`${sidecar.adminUrl}/metrics`)).text()).not.toContain('CANARY')
      await sidecar.end('SIGKILL')
      output += sidecar.output()
    }
    expect(first).toContain('CANARY-1')
    expect(server.received).toHaveLength(1)
    expect(output).toContain('"msg":"request"')
    expect(output).not.toContain('CANARY')
    for (const file of readdirSync(join(home.folder, 'state'))) {
      expect(statSync(join(home.folder, 'state', file)).mode & 0o077).toBe(0)
      expect(readFileSync(join(home.folder, 'state', file), 'latin1')).not.toMatch(/CANARY|connection-string|blob\.example/)
    }
  })

  it('is shared by sidecars on one state, and renewed once a minute however many say that it was rejected', { timeout: 180_000 }, async () => {
    const sidecars = await Promise.all([home.start(), home.start()])
    const answers = await Promise.all(sidecars.flatMap((sidecar) => [ask(sidecar), ask(sidecar), ask(sidecar)]))
    expect(new Set(answers.map((answer) => answer.text)).size).toBe(1)
    expect(server.received).toHaveLength(1)
    for (let round = 0; round < 3; round++) await Promise.all(sidecars.map((sidecar) => ask(sidecar, { 'Cache-Control': 'no-cache' })))
    expect(server.received).toHaveLength(2)
    const renewed = await Promise.all(sidecars.map((sidecar) => ask(sidecar)))
    for (const answer of renewed) expect(answer.text).toContain('CANARY-2')
  })
})

it('the strict provider sees one ask for a temporary secret in nine tenths of its validity', { timeout: 120_000 }, async () => {
  const keys = generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' }
  })
  // an hour in a second and a half
  const speed = 2400
  const time = steadyTime()
  const sandbox = await openSandbox({ port: 0, clock: time.sandboxClock(speed), keys: [keys.publicKey] })
  const sidecar = await testSidecar(
    `
state: sqlite:./state.db
credentials:
  partner: { grant: client_credentials, issuer: ${sandbox.url}/integration, clientId: integration-demo, clientAuth: private_key_jwt, key: '\${KEY}', timeout: 10h }
upstreams:
  partner:
    baseUrl: ${sandbox.url}/integration/api/
    credential: partner
    timeout: { connect: 10h, response: 10h, total: 10h }
    leases: [{ match: GET /connection-string, expires: sas }]
`,
    { speed, time, environment: { KEY: keys.privateKey } }
  )
  try {
    const secrets = new Set<string>()
    let asked = 0
    for (const until = time.now() + 3_200; time.now() < until; asked++) {
      const response = await fetch(`${sidecar.dataUrl}/partner/connection-string`)
      expect(response.status).toBe(200)
      secrets.add(await response.text())
    }
    console.log(`${asked} asks in ${((3.2 * speed) / 3600).toFixed(1)} validities: ${secrets.size} secrets lent`)
    expect(asked).toBeGreaterThan(50)
    expect([2, 3]).toContain(secrets.size)
    sandbox.settle()
    expect(sandbox.ledger.snapshot().violations.filter(({ rule }) => rule === 'IA-15' || rule === 'IA-53')).toEqual([])
  } finally {
    await sidecar.stop()
    await sandbox.close()
    time.close()
  }
})
