import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { signInWithBrowser } from '../support/browser.ts'
import { child, type Child } from '../support/child.ts'
import { authorizationServer, type AuthorizationServer } from '../support/oidc.ts'
import { origin, type Origin } from '../support/origin.ts'
import { testSidecar } from '../support/sidecar.ts'

let folder: string
let server: AuthorizationServer
let api: Origin
let redirectUri: string
const cleanUps: (() => unknown)[] = []

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'attache-login-'))
  redirectUri = `http://127.0.0.1:${await freePort()}/callback`
  api = await origin()
  server = await authorizationServer({
    interactive: true,
    clients: [
      {
        client_id: 'c',
        client_secret: 'client-secret-1',
        grant_types: ['authorization_code', 'refresh_token'],
        response_types: ['code'],
        redirect_uris: [redirectUri],
        scope: 'openid offline_access'
      }
    ]
  })
})
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp()
  await server.close()
  await api.close()
  rmSync(folder, { recursive: true, force: true })
})

async function freePort(): Promise<number> {
  const probe = createServer()
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve))
  const { port } = probe.address() as AddressInfo
  await new Promise((resolve) => probe.close(resolve))
  return port
}

function config(more = ''): string {
  return `
state: "sqlite:./attache.db"
credentials:
  person: { grant: refresh_token, issuer: "${server.issuer}", clientId: c, clientSecret: client-secret-1, scope: openid offline_access, authorizationParams: { prompt: consent }, redirectUri: "${redirectUri}" ${more} }
upstreams:
  up: { baseUrl: "${api.url}/", credential: person }
`
}

function login(more = '', ...args: string[]): Child {
  const file = join(folder, 'attache.yaml')
  writeFileSync(file, `version: 1\n${config(more)}`, { mode: 0o600 })
  const started = child('src/main.ts', ['login', 'person', '--config', file, ...args])
  cleanUps.push(() => started.kill('SIGKILL'))
  return started
}

describe('attache login', { timeout: 30_000 }, () => {
  test.each(['', ', responseMode: form_post'])('takes a person through a real sign-in once, then calls are made as that person (%s)', async (more) => {
    const one = login(more)
    const url = await one.line(/^http/)
    await one.line(/^Waiting/)
    const { searchParams } = new URL(url)
    expect(Object.fromEntries(searchParams)).toMatchObject({
      response_type: 'code',
      code_challenge_method: 'S256',
      state: expect.stringMatching(/^[\w-]{43}$/),
      prompt: 'consent'
    })
    const last = await signInWithBrowser(url)
    expect([last.status, await last.text()]).toEqual([200, 'Signed in. You may close this window.\n'])
    expect(await one.ended).toBe(0)
    expect(one.lines.join('\n')).not.toMatch(/client-secret-1/)

    const sidecar = await testSidecar(config(more), { folder })
    cleanUps.push(() => sidecar.stop())
    await fetch(`${sidecar.dataUrl}/up/a`)
    const token = (api.received[0]?.headers.authorization ?? '').replace('Bearer ', '')
    expect(await server.introspect(token)).toMatchObject({ active: true, sub: 'user-1' })
    expect(server.tokenRequests).toEqual(['authorization_code'])
  })

  test('turns away a response with another state, and waits for its own', async () => {
    const one = login()
    const url = await one.line(/^http/)
    await one.line(/^Waiting/)
    const forged = await fetch(`${redirectUri}?code=attacker&state=guessed&iss=${encodeURIComponent(server.issuer)}`)
    expect(forged.status).toBe(400)
    const unnamed = await fetch(`${redirectUri}?code=attacker&state=${new URL(url).searchParams.get('state')}&iss=https://attacker.example`)
    expect(unnamed.status).toBe(400)
    expect((await signInWithBrowser(url)).status).toBe(200)
    expect(await one.ended).toBe(0)
    expect(server.tokenRequests).toEqual(['authorization_code'])
  })

  test('says so when the person declines', async () => {
    const one = login()
    const url = await one.line(/^http/)
    await one.line(/^Waiting/)
    const state = new URL(url).searchParams.get('state')
    await fetch(`${redirectUri}?error=access_denied&error_description=no%20thanks&state=${state}&iss=${encodeURIComponent(server.issuer)}`)
    expect(await one.ended).toBe(1)
    expect(one.lines.at(-1)).toBe('attache login: the sign-in was refused: access_denied no thanks')
    expect(server.tokenRequests).toEqual([])
  })

  test('lets a running sidecar that has lost its sign-in go on by itself', async () => {
    const sidecar = await testSidecar(config(), { folder, speed: 60 })
    cleanUps.push(() => sidecar.stop())
    const before = await fetch(`${sidecar.dataUrl}/up/a`)
    expect([before.status, ((await before.json()) as { type: string }).type]).toEqual([503, 'urn:attache:problem:credential-rejected'])
    const one = login('', '--speed', '60')
    const url = await one.line(/^http/)
    await one.line(/^Waiting/)
    await signInWithBrowser(url)
    expect(await one.ended).toBe(0)
    let status = 503
    for (const until = performance.now() + 5_000; status === 503 && performance.now() < until;) status = (await fetch(`${sidecar.dataUrl}/up/a`)).status
    expect(status).toBe(200)
  })
})
