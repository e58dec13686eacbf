import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { ROOT, VERSION } from '../../src/package.ts'
import { origin, type Origin } from '../support/origin.ts'
import { testSidecar, type TestSidecar } from '../support/sidecar.ts'

// a process of its own takes a second to start where others are busy too
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })

let provider: Origin
let sidecar: TestSidecar
beforeAll(async () => {
  provider = await origin((received, response) => {
    const cacheable = received.url.startsWith('/kept') ? { 'Cache-Control': 'max-age=60' } : {}
    response.writeHead(200, cacheable).end(received.url.startsWith('/news') ? `news ${provider.received.length}` : 'always the same')
  })
  sidecar = await testSidecar(
    `
credentials: { key: { grant: static, header: X-Api-Key, value: "\${KEY}" } }
upstreams:
  up:
    baseUrl: ${provider.url}
    credential: key
    volume: { limits: ["1000/1h"] }
    operations: { allow: ["GET /items/{id}", "GET /news", "GET /kept"] }
  quiet: { baseUrl: "${provider.url}" }
`,
    { environment: { KEY: 'CANARY-KEY' } }
  )
  for (const path of ['items/1', 'items/1', 'items/1', 'items/2', 'news', 'news', 'kept', 'kept', 'items/CANARY?q=CANARY', 'elsewhere']) {
    await (await fetch(`${sidecar.dataUrl}/up/${path}`)).text()
  }
})
afterAll(async () => {
  await sidecar.stop()
  await provider.close()
})

describe('GET /api/report', () => {
  it('gives what was measured of every upstream, and which lifetimes would have saved calls', async () => {
    const answer = await fetch(`${sidecar.adminUrl}/api/report`)
    expect(answer.status).toBe(200)
    const text = await answer.text()
    expect(text).not.toContain('CANARY')
    const report = JSON.parse(text)
    expect(report).toMatchObject({ version: VERSION, speed: 1, tokens: { key: { requests: 0 } } })
    expect(Date.parse(report.from)).toBeLessThanOrEqual(Date.parse(report.to))
    expect(report.upstreams.up).toMatchObject({
      baseUrl: provider.url,
      agreement: null,
      requests: { total: 10, by: { upstream: 8, cache: 1, local: 1 } },
      calls: { total: 8, by: { success: 8 }, retries: 0 },
      avoided: { total: 2, by: { cache: 1, guard: 1 } },
      cache: { entries: 1 }
    })
    expect(report.upstreams.up.volume['1000/1h']).toBeCloseTo(0.008)
    expect(provider.received).toHaveLength(8)
    const advice = Object.fromEntries(report.upstreams.up.advice.map((each: { operation: string }) => [each.operation, each]))
    expect(advice['GET /items/{id}']).toMatchObject({ calls: 5, judged: 5, repeated: 2, suggestedTtl: '10s', wouldHaveSaved: 2 })
    expect(advice['GET /items/{id}'].trials[0]).toEqual({ ttl: '10s', saved: 2, outdated: 0 })
    expect(advice['GET /news']).toMatchObject({ calls: 2, judged: 2, repeated: 0, suggestedTtl: null, wouldHaveSaved: 0 })
    expect(advice['GET /kept']).toMatchObject({ calls: 1, repeated: 0, suggestedTtl: null })
    expect(report.upstreams.quiet).toMatchObject({ requests: { total: 0 }, calls: { total: 0, perHour: 0 }, advice: [] })
  })
})

describe('attache report', () => {
  async function command(config: string, ...args: string[]): Promise<{ code: number; out: string; err: string }> {
    const file = join(sidecar.folder, 'report.yaml')
    writeFileSync(file, config, { mode: 0o600 })
    const env = { PATH: process.env['PATH'], TOKEN: 'CANARY-TOKEN' }
    const running = promisify(execFile)(process.execPath, [join(ROOT, 'src/main.ts'), 'report', '--config', file, ...args], { env })
    return running.then(
      ({ stdout, stderr }) => ({ code: 0, out: stdout, err: stderr }),
      (error: { code: number; stdout: string; stderr: string }) => ({ code: error.code, out: error.stdout, err: error.stderr })
    )
  }
  const at = (address: string): string => `admin: { listen: "${address}" }\nupstreams: { up: { baseUrl: "${provider.url}" } }\n`

  it('prints the same as JSON, or as Markdown for people', async () => {
    const address = new URL(sidecar.adminUrl).host
    const [json, markdown] = [await command(at(address), '--format', 'json'), await command(at(address))]
    expect(json).toMatchObject({ code: 0, err: '' })
    expect(JSON.parse(json.out).upstreams.up.calls.total).toBe(8)
    expect(markdown).toMatchObject({ code: 0, err: '' })
    expect(markdown.out).toMatch(/^\| up \|  \| 10 \| 8 \| [\d.]+ \| 0 \| 2, cache 1, guard 1 \|$/m)
    expect(markdown.out).toContain('| up | GET /items/{id} | 5 | 5 | 2 | 10s | 2 |')
    expect(markdown.out).toContain('| key | 0 | ')
  })

  it('is of the whole time since the start, within whatever longer period is asked for, and of no shorter one', async () => {
    const address = new URL(sidecar.adminUrl).host
    const [longer, shorter, nonsense] = [
      await command(at(address), '--period', '30d'),
      await command(at(address), '--period', '1ms'),
      await command(at(address), '--period', 'long')
    ]
    expect(longer).toMatchObject({ code: 0, out: expect.stringMatching(/^Measured by .* from \S+ to \S+\. Of the last 30d nothing else is known/m) })
    expect(shorter).toEqual({
      code: 1,
      out: '',
      err: expect.stringMatching(/^attache report: what is counted is counted since the start \(20.*for the last 1ms alone\n$/)
    })
    expect(nonsense).toMatchObject({ code: 2, err: expect.stringContaining('--period takes a duration such as 12h or 30d, not "long"') })
  })

  it('says so where no sidecar answers', async () => {
    expect(await command(at('127.0.0.1:9'))).toEqual({
      code: 1,
      out: '',
      err: 'attache report: no sidecar answers on admin.listen of this configuration; start it with attache run\n'
    })
  })

  it('shows the token of an admin port that wants one, and says so where it is refused', async () => {
    const guarded = await testSidecar('admin: { listen: "127.0.0.1:0", token: "${TOKEN}" }\nupstreams: {}', { environment: { TOKEN: 'CANARY-TOKEN' } })
    const { host } = new URL(guarded.adminUrl)
    const tokened = await command(`admin: { listen: "${host}", token: "\${TOKEN}" }\nupstreams: {}\n`, '--format', 'json')
    expect(tokened).toMatchObject({ code: 0, out: expect.stringContaining('"upstreams":{}') })
    expect(await command(at(host))).toMatchObject({ code: 1, err: 'attache report: the admin port answers 403\n' })
    await guarded.stop()
  })
})
