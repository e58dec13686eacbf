import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openSandbox } from '../../sandbox/main.ts'
import type { Sandbox } from '../../sandbox/server.ts'
import { signInWithBrowser } from '../support/browser.ts'
import { child, type Child } from '../support/child.ts'
import { attache } from '../support/command-line.ts'
import { testSidecar } from '../support/sidecar.ts'

let folder: string
let sandbox: Sandbox
const cleanUps: (() => unknown)[] = []

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'attache-login-'))
  sandbox = await openSandbox({ port: 0 })
})
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp()
  await sandbox.close()
  rmSync(folder, { recursive: true, force: true })
})

function config(more = '', state = 'sqlite:./attache.db'): string {
  return `
state: "${state}"
credentials:
  dinero: { grant: refresh_token, tokenUrl: "${sandbox.url}/dinero/token", authorizationUrl: "${sandbox.url}/dinero/authorize", clientId: isv_demo, clientSecret: dinero-secret, clientAuth: client_secret_post, scope: dineropublicapi:read offline_access${more} }
  machine: { grant: client_credentials, tokenUrl: "${sandbox.url}/connect/token", clientId: connect-demo, clientSecret: connect-secret }
upstreams:
  dinero: { baseUrl: "${sandbox.url}/dinero/api/", agreement: dinero, credential: dinero }
`
}

function write(more?: string, state?: string): string {
  const file = join(folder, 'attache.yaml')
  writeFileSync(file, `version: 1\n${config(more, state)}`, { mode: 0o600 })
  return file
}

function login(args: readonly string[] = [], environment: NodeJS.ProcessEnv = {}): Child {
  const started = child('src/main.ts', ['login', 'dinero', '--config', join(folder, 'attache.yaml'), ...args], { env: environment })
  cleanUps.push(() => started.kill('SIGKILL'))
  return started
}

async function address(one: Child): Promise<string> {
  const url = await one.line(/^http/)
  await one.line(/^Waiting at/)
  return url
}

describe('attache login before the strict provider', { timeout: 120_000 }, () => {
  it.each([
    ['a query', ''],
    ['a form', ', responseMode: form_post']
  ])('gets a code by %s, redeems it once with PKCE, and breaks no clause; calls then need no other token', async (_name, more) => {
    write(more)
    const one = login()
    expect((await signInWithBrowser(await address(one))).status).toBe(200)
    expect(await one.ended).toBe(0)
    const sidecar = await testSidecar(config(more), { folder })
    cleanUps.push(() => sidecar.stop())
    expect((await fetch(`${sidecar.dataUrl}/dinero/v1.1/organizations`)).status).toBe(200)
    expect(sandbox.ledger.counts('dinero')).toMatchObject({ tokenRequests: 1, tokensIssued: 1 })
    sandbox.settle()
    expect(sandbox.ledger.snapshot().violations).toEqual([])
  })

  it('says what the provider says of a scope it has not approved', async () => {
    write(', authorizationParams: { scope: ignored }'.replace('ignored', 'x'))
    writeFileSync(
      join(folder, 'attache.yaml'),
      readFileSync(join(folder, 'attache.yaml'), 'utf8').replace('dineropublicapi:read', 'dineropublicapi:everything')
    )
    const one = login()
    expect((await signInWithBrowser(await address(one))).status).toBe(400)
    expect(await one.ended).toBe(1)
    expect(one.lines.at(-1)).toBe('attache login: the sign-in was refused: invalid_scope')
  })

  it('ends by itself when nobody comes', async () => {
    write()
    const one = login(['--timeout', '1s'])
    expect(await one.ended).toBe(1)
    expect(one.lines.at(-1)).toBe('attache login: nobody signed in within 1 seconds')
  })

  it.skipIf(process.platform !== 'linux')('opens the browser where it is told to, and only there', async () => {
    write()
    const opener = join(folder, 'xdg-open')
    writeFileSync(opener, '#!/bin/sh\nprintf %s "$1" > "$0.part" && mv "$0.part" "$0.url"\n')
    chmodSync(opener, 0o755)
    const environment = { PATH: `${folder}:${process.env['PATH']}` }
    const quiet = login([], environment)
    await address(quiet)
    quiet.kill('SIGTERM')
    await quiet.ended
    expect(existsSync(`${opener}.url`)).toBe(false)
    const one = login(['--open'], environment)
    const url = await address(one)
    await expect.poll(() => existsSync(`${opener}.url`), { timeout: 5_000 }).toBe(true)
    expect(readFileSync(`${opener}.url`, 'utf8')).toBe(url)
  })

  it('says that there is no browser to open, and waits on', async () => {
    write()
    const one = login(['--open'], { PATH: folder })
    await address(one)
    expect(await one.line(/^there is no browser/)).toBe('there is no browser to open here, open the address yourself')
  })

  it('names the port that is taken, before anybody is sent anywhere', async () => {
    write()
    const taken = createServer()
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
    cleanUps.push(() => taken.close())
    const { port } = taken.address() as AddressInfo
    const one = login(['--port', String(port)])
    expect(await one.ended).toBe(1)
    expect(one.lines).toEqual([
      `attache login: cannot wait for the browser at 127.0.0.1:${port}, something else listens there: choose another port with --port or in redirectUri`
    ])
  })
})

describe('attache login refuses', { timeout: 120_000 }, () => {
  it('a credential that is not there, or that nobody signs in for', async () => {
    const file = write()
    const [unknown, machine, key] = await Promise.all(
      [['dinera'], ['machine'], ['dinero', '--key', '1']].map((args) => attache(['login', ...args, '--config', file], folder))
    )
    expect(unknown).toEqual({ code: 1, out: '', err: `attache login: no credential dinera in ${file}; there are dinero, machine\n` })
    expect(machine).toEqual({ code: 1, out: '', err: 'attache login: credential machine has grant client_credentials: only refresh_token takes a sign-in\n' })
    expect(key).toEqual({ code: 1, out: '', err: 'attache login: credential dinero has no perKey, so it takes no key\n' })
  })

  it('a state that would forget, or cannot be used', async () => {
    const memory = await attache(['login', 'dinero', '--config', write('', 'memory:')], folder)
    expect(memory).toMatchObject({ code: 1, err: expect.stringMatching(/^attache login: state is memory:/) })
    writeFileSync(join(folder, 'file'), 'not a folder')
    const unusable = await attache(['login', 'dinero', '--config', write('', 'sqlite:./file/attache.db')], folder)
    expect(unusable).toMatchObject({ code: 1, out: '', err: expect.stringMatching(/^warning: state: [^\n]*\nattache login: the state has to be usable first/) })
  })

  it('a redirect that is not on loopback, with the rest of the config; and surroundings that would give secrets away', async () => {
    const file = write(', redirectUri: "https://app.example/callback"')
    const ran = await attache(['login', 'dinero', '--config', file], folder)
    expect(ran).toMatchObject({ code: 1, err: expect.stringMatching(/credentials\.dinero: redirectUri must be http: on loopback with a path/) })
    const exposed = login([], { NODE_TLS_REJECT_UNAUTHORIZED: '0' })
    expect([await exposed.ended, exposed.lines.find((line) => line.startsWith('environment: NODE_TLS_REJECT_UNAUTHORIZED=0')) !== undefined]).toEqual([1, true])
  })

  it('wrong usage', async () => {
    const wrong: [string[], RegExp][] = [
      [[], /missing required argument 'credential'/],
      [['dinero', '--port', '70000'], /a port from 0 to 65535/],
      [['dinero', '--timeout', 'soon'], /a duration such as 90s, 5m or 1h/]
    ]
    const file = write()
    await Promise.all(
      wrong.map(async ([args, message]) => {
        expect(await attache(['login', ...args, '--config', file], folder)).toMatchObject({ code: 2, err: expect.stringMatching(message) })
      })
    )
  })
})
