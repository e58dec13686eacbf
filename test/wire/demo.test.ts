import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { disagreements, readMetrics, table, type Account } from '../../sandbox/demo/table.ts'

const DEMO = join(import.meta.dirname, '../../sandbox/demo.ts')

type Run = { child: ChildProcess; output(): string; until(text: string): Promise<void>; code: Promise<number | null> }
const running: ChildProcess[] = []
afterEach(() => {
  for (const child of running) child.kill('SIGKILL')
  running.length = 0
})

function demo(args: string[], environment: Record<string, string> = {}): Run {
  const child = spawn(process.execPath, [DEMO, ...args], { env: { ...process.env, ...environment }, stdio: ['ignore', 'pipe', 'pipe'] })
  running.push(child)
  let text = ''
  const waiting = new Set<() => void>()
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (piece: string) => {
      text += piece
      for (const look of waiting) look()
    })
  }
  const code = once(child, 'close').then(([value]: unknown[]) => (typeof value === 'number' ? value : null))
  return {
    child,
    code,
    output: () => text,
    until: (wanted) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          if (text.includes(wanted)) resolve()
        }
        waiting.add(look)
        look()
        void code.then(() => reject(new Error(`ended without saying ${wanted}:\n${text}`)))
      })
  }
}

/** The numbers of a row of the table, by provider. */
function row(output: string, name: string): string[] {
  const line = output.split('\n').find((each) => each.startsWith(name)) ?? ''
  return line
    .slice(name.length)
    .trim()
    .split(/\s{2,}/)
}

describe('npm run demo', () => {
  it('ends with one token per provider, no violation, and fewer calls at the providers than the app made', { timeout: 180_000 }, async () => {
    const run = demo(['--once', '--ports', 'auto', '--speed', '50'])
    const code = await run.code
    const output = run.output()
    expect(output).toContain('everything as promised')
    expect(code).toBe(0)
    expect(row(output, 'tokens requested')).toEqual(['1', '1'])
    expect(row(output, 'violations')).toEqual(['0', '0'])
    const [asked, saw] = ['the app asked', 'the provider saw'].map((name) => row(output, name).map(Number))
    expect(asked?.reduce((total, each) => total + each, 0)).toBeGreaterThanOrEqual(100)
    expect(saw?.every((each, provider) => each < (asked?.[provider] ?? 0))).toBe(true)
    // no colours where nobody looks
    expect(output).not.toContain('\u001B')
  })

  it('stays up with something to try, and leaves nothing behind on Ctrl-C', { timeout: 180_000 }, async () => {
    const run = demo(['--ports', 'auto', '--speed', '100'])
    await run.until('Ctrl-C ends it')
    const sandbox = /sandbox providers on (\S+),/.exec(run.output())?.[1] ?? ''
    const sidecar = /sidecar on (\S+) /.exec(run.output())?.[1] ?? ''
    expect((await fetch(`${sidecar}/partner/customers/c42`)).status).toBe(200)
    expect(await (await fetch(`${sandbox}/ledger`)).json()).toMatchObject({ violations: [] })
    run.child.kill('SIGINT')
    expect(await run.code).toBe(0)
    await expect(fetch(sandbox)).rejects.toThrow('fetch failed')
    await expect(fetch(sidecar)).rejects.toThrow('fetch failed')
  })

  it('names the port that is in use', { timeout: 60_000 }, async () => {
    const blocker = createServer().listen(7700, '127.0.0.1')
    // already in use by somebody else serves as well
    await Promise.race([once(blocker, 'listening'), once(blocker, 'error')]).catch(String)
    const run = demo(['--once'])
    expect(await run.code).toBe(1)
    expect(run.output()).toMatch(/port \d+ is in use: .*--ports auto/)
    blocker.close()
  })

  it('shows the last words of a sidecar that does not start', { timeout: 60_000 }, async () => {
    const run = demo(['--once', '--ports', 'auto'], { SSLKEYLOGFILE: '/dev/null' })
    expect(await run.code).toBe(1)
    expect(run.output()).toMatch(/the sidecar ended early with code 1[^]*SSLKEYLOGFILE/)
  })

  it('knows its options', { timeout: 60_000 }, async () => {
    const wrong = demo(['--twice'])
    expect([await wrong.code, wrong.output()]).toEqual([2, expect.stringContaining('usage: npm run demo')])
    const slow = demo(['--speed', 'very'])
    expect(await slow.code).toBe(2)
    const help = demo(['--help'])
    expect(await help.code).toBe(0)
  })
})

describe('the account of the demo', () => {
  const fine: Account = {
    title: 'Provider',
    tally: { asked: 3, waitedMs: 41_000, answers: { 200: 3 } },
    counts: { tokenRequests: 1, tokensIssued: 1, tokensRefused: 0, apiCalls: 2, unanswered: 0, bytesIn: 0, answers: { 200: 2 } },
    violations: [],
    metric: readMetrics('attache_attempts_total{upstream="a",code="200"} 1\nattache_attempts_total{upstream="a",code="503"} 1\nattache_retries_total 1\n')
  }

  it('has nothing to say where the three sides agree', () => {
    expect(disagreements(fine)).toEqual([])
    expect(table([fine])).toMatch(/tokens requested +1\n/)
  })

  it.each([
    [
      'a clause was broken',
      { violations: [{ t: 0, rule: 'IA-13', severity: 'S1', provider: 'p', client: 'c', detail: 'too early' }] },
      'Provider: broke IA-13 (S1) by: too early'
    ],
    ['a second token was requested', { counts: { ...fine.counts, tokenRequests: 2 } }, 'Provider: 2 token requests instead of 1'],
    ['the provider counted more calls than the sidecar', { counts: { ...fine.counts, apiCalls: 3 } }, 'Provider: the sidecar counted 2 calls, the provider 3']
  ] as const)('says so where %s', (_what, change, sentence) => {
    expect(disagreements({ ...fine, ...change })).toEqual([sentence])
  })
})
