import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ROOT } from '../architecture/sources.ts'
import { child } from '../support/child.ts'
import { origin, type Origin } from '../support/origin.ts'

const folder = mkdtempSync(join(tmpdir(), 'attache-package-'))
const main = join(folder, 'dist/src/main.js')
const config = join(folder, 'attache.yaml')
let provider: Origin

beforeAll(async () => {
  execFileSync(process.execPath, [join(ROOT, '.ci/build.ts'), join(folder, 'dist')])
  provider = await origin((received, response) => {
    if (received.url !== '/token') return void response.end(received.headers.authorization)
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify({ access_token: 'of-the-package', token_type: 'Bearer', expires_in: 3600 }))
  })
}, 60_000)

afterAll(async () => {
  await provider.close()
  rmSync(folder, { recursive: true })
})

function configured(state: string): void {
  writeFileSync(
    config,
    `version: 1
listen: 127.0.0.1:0
admin: { listen: 127.0.0.1:0 }
state: ${state}
credentials:
  a: { grant: client_credentials, tokenUrl: "${provider.url}/token", clientId: a, clientSecret: b, clientAuth: client_secret_basic }
upstreams:
  up: { baseUrl: "${provider.url}/api/", credential: a, agreement: finfo }
`,
    { mode: 0o600 }
  )
}

async function run(...args: string[]): Promise<{ code: number | null; out: string }> {
  const one = child(main, args, { env: {} })
  return { code: await one.ended, out: one.lines.join('\n') }
}

// nothing installed is above the folder: what is missing in the files is missing
describe('the built package, alone in a folder', () => {
  test.each(['sqlite:./state.db', 'redis://127.0.0.1:9/0', 'memory:'])('serves with a token, state in %s', async (state) => {
    configured(state)
    const sidecar = child(main, ['run', '--config', config], { env: {} })
    try {
      const ready = JSON.parse(await sidecar.line(/"msg":"ready"/)) as { data: string; admin: string }
      const answer = await fetch(`${ready.data}/up/things`)
      expect([answer.status, await answer.text()]).toEqual([200, 'Bearer of-the-package'])
      expect(await (await fetch(`${ready.admin}/metrics`)).text()).toMatch(/attache_requests_total\{[^}]*source="upstream"[^}]*\} 1\n/)
    } finally {
      sidecar.kill('SIGTERM')
    }
    expect(await sidecar.ended).toBe(0)
  })

  test('has every command', async () => {
    configured('memory:')
    expect(await run('check', '--config', config)).toMatchObject({ code: 0, out: expect.stringContaining('ok, 1 upstream') })
    expect(await run('explain', 'GET', '/up/things', '--config', config)).toMatchObject({ code: 0, out: expect.stringContaining('up') })
    expect(await run('config', '--config', config)).toMatchObject({ code: 0, out: expect.stringContaining('clientSecret') })
    expect(await run('keys', 'list', '--config', config)).toMatchObject({ code: 0 })
    expect(await run('--help')).toMatchObject({ code: 0, out: expect.stringContaining('sandbox') })
    const sandbox = child(main, ['sandbox', '--port', '0'], { env: {} })
    expect(await sandbox.line(/^sandbox on/)).toContain('ledger')
    sandbox.kill('SIGTERM')
    expect(await sandbox.ended).toBe(0)
  })

  test('names the licence of every package in it', () => {
    const text = readFileSync(join(folder, 'dist/THIRD-PARTY-LICENSES.txt'), 'utf8')
    for (const name of ['fastify', 'undici', 'ioredis', '@peculiar/x509', 'yaml']) expect(text).toMatch(new RegExp(`^${name} \\d`, 'm'))
    expect(existsSync(join(folder, 'dist/config/agreements'))).toBe(true)
  })
})
