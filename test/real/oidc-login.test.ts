import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
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
const cleanUps: (() => unknown)[] = []

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'attache-login-'))
  api = await origin()
  server = await authorizationServer({
    interactive: true,
    lifetimeSeconds: 120,
    clients: [
      {
        client_id: 'c',
        client_secret: 'client-secret-1',
        grant_types: ['authorization_code', 'refresh_token'],
        response_types: ['code'],
        // a native client may come back to any port of this (RFC 8252 §7.3)
        application_type: 'native',
        redirect_uris: ['http://127.0.0.1/callback'],
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

function config(more = ''): string {
  return `
state: "sqlite:./attache.db"
credentials:
  person: { grant: refresh_token, issuer: "${server.issuer}", clientId: c, clientSecret: client-secret-1, scope: openid offline_access, authorizationParams: { prompt: consent } ${more} }
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

/** What is printed for the person: where to go, and where the browser comes back to. */
async function shown(one: Child): Promise<{ url: string; redirectUri: string; state: string; iss: string }> {
  const url = await one.line(/^http/)
  await one.line(/^Waiting at http/)
  const { searchParams } = new URL(url)
  return { url, redirectUri: searchParams.get('redirect_uri') ?? '', state: searchParams.get('state') ?? '', iss: encodeURIComponent(server.issuer) }
}

describe('attache login', { timeout: 120_000 }, () => {
  test.each(['', ', responseMode: form_post'])('takes a person through a real sign-in once, then calls are made as that person (%s)', async (more) => {
    const one = login(more)
    const { url, redirectUri } = await shown(one)
    expect(redirectUri).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/callback$/)
    const last = await signInWithBrowser(url)
    expect([last.status, await last.text()]).toEqual([200, expect.stringContaining('<p>Signed in. You may close this window.</p>')])
    expect(await one.ended).toBe(0)
    expect(one.lines.at(-1)).toBe('Signed in: credential person renews its tokens by itself from now on.')

    const sidecar = await testSidecar(config(more), { folder })
    cleanUps.push(() => sidecar.stop())
    await fetch(`${sidecar.dataUrl}/up/a`)
    const token = (api.received[0]?.headers.authorization ?? '').replace('Bearer ', '')
    expect(await server.introspect(token)).toMatchObject({ active: true, sub: 'user-1' })
    expect(server.tokenRequests).toEqual(['authorization_code'])
    for (const secret of [token, 'client-secret-1']) {
      expect(one.lines.join('\n')).not.toContain(secret)
      for (const file of readdirSync(folder).filter((name) => name !== 'attache.yaml')) expect(readFileSync(join(folder, file), 'latin1')).not.toContain(secret)
    }
  })

  test('turns away what another state or another issuer answers, says so, and waits for its own', async () => {
    const one = login()
    const { url, redirectUri, state, iss } = await shown(one)
    expect((await fetch(`${redirectUri}?code=attacker&state=guessed&iss=${iss}`)).status).toBe(400)
    expect(await one.line(/^turned/)).toBe('turned an answer away: its state is not that of this sign-in')
    expect((await fetch(`${redirectUri}?code=attacker&state=${state}&iss=https://attacker.example`)).status).toBe(400)
    expect((await fetch(`${redirectUri}?code=attacker&state=${state}`)).status).toBe(400)
    expect((await signInWithBrowser(url)).status).toBe(200)
    expect(await one.ended).toBe(0)
    expect(one.lines.filter((line) => line.startsWith('turned')).slice(1)).toEqual([
      'turned an answer away: its issuer is not that of the credential',
      'turned an answer away: it does not name its issuer'
    ])
    expect(server.tokenRequests).toEqual(['authorization_code'])
  })

  test('says so when the person declines', async () => {
    const one = login()
    const { redirectUri, state, iss } = await shown(one)
    await fetch(`${redirectUri}?error=access_denied&error_description=no%20thanks&state=${state}&iss=${iss}`)
    expect(await one.ended).toBe(1)
    expect(one.lines.at(-1)).toBe('attache login: the sign-in was declined: access_denied no thanks')
    expect(server.tokenRequests).toEqual([])
  })

  test('says so when the code is no good', async () => {
    const one = login()
    const { redirectUri, state, iss } = await shown(one)
    await fetch(`${redirectUri}?code=made-up-code&state=${state}&iss=${iss}`)
    expect(await one.ended).toBe(1)
    expect(one.lines.at(-1)).toMatch(/^attache login: the token service gave no token: it answered invalid_grant/)
    expect(one.lines.join('\n')).not.toContain('=made-up-code')
    expect(server.tokenRequests).toEqual(['authorization_code ! invalid_grant'])
  })

  test('lets a running sidecar that has lost its sign-in go on by itself, and renew on from there', async () => {
    const sidecar = await testSidecar(config(), { folder, speed: 60 })
    cleanUps.push(() => sidecar.stop())
    const before = await fetch(`${sidecar.dataUrl}/up/a`)
    expect([before.status, ((await before.json()) as { type: string }).type]).toEqual([503, 'urn:attache:problem:credential-rejected'])
    const one = login('', '--speed', '60')
    await signInWithBrowser((await shown(one)).url)
    expect(await one.ended).toBe(0)
    await expect.poll(async () => (await fetch(`${sidecar.dataUrl}/up/a`)).status, { timeout: 5_000 }).toBe(200)
    expect(server.tokenRequests).toEqual(['authorization_code'])
    // a token's two minutes, sixty times faster
    await expect
      .poll(
        async () => {
          await fetch(`${sidecar.dataUrl}/up/a`)
          return server.tokenRequests.length
        },
        { timeout: 15_000 }
      )
      .toBe(2)
    expect([server.tokenRequests[1], server.reused]).toEqual(['refresh_token', []])
    expect((await fetch(`${sidecar.dataUrl}/up/a`)).status).toBe(200)
  })
})
