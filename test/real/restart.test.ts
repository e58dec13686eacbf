import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { origin, type Origin } from '../support/origin.ts'
import { sidecarHome, type SidecarHome } from '../support/process.ts'

let server: Origin
let home: SidecarHome

beforeEach(async () => {
  let issued = 0
  server = await origin((received, response) => {
    if (received.url !== '/token') return void response.end(received.headers.authorization)
    response.writeHead(200, { 'Content-Type': 'application/json' })
    return void response.end(JSON.stringify({ access_token: `CANARY-token-${++issued}`, token_type: 'Bearer', expires_in: 3600 }))
  })
  home = sidecarHome(
    `
state: sqlite:./state/attache.db
log: { level: trace }
credentials:
  machine: { grant: client_credentials, tokenUrl: "${server.url}/token", clientId: app, clientSecret: "\${SECRET}" }
upstreams:
  up: { baseUrl: "${server.url}/api", credential: machine }
`,
    { SECRET: 'CANARY-client-secret' }
  )
})
afterEach(async () => {
  await home.remove()
  await server.close()
})

const tokenRequests = (): number => server.received.filter(({ url }) => url === '/token').length

describe('a sidecar with its state in SQLite', () => {
  it('asks for one token however often it is killed, and leaves no secret behind', { timeout: 180_000 }, async () => {
    let output = ''
    for (let life = 0; life < 5; life++) {
      const sidecar = await home.start()
      const answer = await fetch(`${sidecar.dataUrl}/up/x`)
      expect(answer.status).toBe(200)
      expect(await (await fetch(`${sidecar.adminUrl}/metrics`)).text()).not.toContain('CANARY')
      expect(readFileSync(`/proc/${sidecar.pid}/cmdline`, 'latin1')).not.toContain('CANARY')
      // lines of requests are written a moment later: without it the log to be searched might hold none
      if (life === 0) await sidecar.line(/"msg":"request"/)
      await sidecar.end('SIGKILL')
      output += sidecar.output()
    }
    expect(tokenRequests()).toBe(1)
    expect(output).not.toContain('CANARY')
    for (const file of readdirSync(join(home.folder, 'state'))) {
      const path = join(home.folder, 'state', file)
      expect(statSync(path).mode & 0o077, `${file} is readable by others`).toBe(0)
      expect(readFileSync(path, 'latin1'), file).not.toContain('CANARY')
    }
  })

  it('sets a broken state file aside with a warning and goes on', { timeout: 120_000 }, async () => {
    const first = await home.start()
    await fetch(`${first.dataUrl}/up/x`)
    expect(await first.end('SIGTERM')).toBe(0)
    writeFileSync(join(home.folder, 'state/attache.db'), 'this is not a database, but it is long enough to be taken for one'.repeat(100))
    for (const file of readdirSync(join(home.folder, 'state')).filter((name) => /-wal|-shm/.test(name))) rmSync(join(home.folder, 'state', file))
    const second = await home.start()
    expect((await fetch(`${second.dataUrl}/up/x`)).status).toBe(200)
    expect(second.output()).toMatch(/"level":"warn".*broken/)
    expect(readdirSync(join(home.folder, 'state')).some((name) => name.includes('broken'))).toBe(true)
  })

  it('ends with 0 on SIGTERM and reloads on SIGHUP', { timeout: 120_000 }, async () => {
    const sidecar = await home.start()
    process.kill(sidecar.pid, 'SIGHUP')
    await expect
      .poll(async () => (await (await fetch(`${sidecar.adminUrl}/metrics`)).text()).includes('attache_config_reloads_total{result="success"} 1'))
      .toBe(true)
    expect(await sidecar.end('SIGTERM')).toBe(0)
  })
})
