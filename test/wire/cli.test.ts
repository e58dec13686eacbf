import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test, vi } from 'vitest'
import { ROOT, VERSION } from '../../src/package.ts'

// a process of its own takes a second to start where others are busy too
vi.setConfig({ testTimeout: 30_000 })

const MAIN = join(ROOT, 'src/main.ts')
const folder = mkdtempSync(join(tmpdir(), 'attache-cli-'))
const running = new Set<ChildProcess>()

afterAll(() => {
  for (const child of running) child.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
})

type Outcome = { code: number | null; out: string; err: string }
type Running = { child: ChildProcess; ended: Promise<Outcome>; until(pattern: RegExp): Promise<string> }

/** Starts a command in the folder of the configs, without anything of this process's environment that it might obey. */
function start(args: string[], environment: NodeJS.ProcessEnv = {}, flags: string[] = []): Running {
  const child = spawn(process.execPath, [...flags, MAIN, ...args], { cwd: folder, env: { PATH: process.env['PATH'], HOME: folder, ...environment } })
  running.add(child)
  const text = { out: '', err: '' }
  const listeners = new Set<() => void>()
  for (const [stream, into] of [
    [child.stdout, 'out'],
    [child.stderr, 'err']
  ] as const) {
    stream.setEncoding('utf8').on('data', (part: string) => {
      text[into] += part
      for (const listener of listeners) listener()
    })
  }
  const ended = new Promise<Outcome>((resolve) => {
    child.once('close', (code) => {
      running.delete(child)
      resolve({ code, ...text })
    })
  })
  function until(pattern: RegExp): Promise<string> {
    return new Promise((resolve, reject) => {
      function look(): void {
        const match = pattern.exec(text.out + text.err)
        if (match === null) return
        listeners.delete(look)
        resolve(match[1] ?? match[0])
      }
      listeners.add(look)
      look()
      void ended.then(({ out, err }) => reject(new Error(`ended before ${String(pattern)}: ${out}${err}`)))
    })
  }
  return { child, ended, until }
}

function run(args: string[], environment: NodeJS.ProcessEnv = {}, flags: string[] = []): Promise<Outcome> {
  return start(args, environment, flags).ended
}

function config(name: string, text: string): string {
  const file = join(folder, name)
  writeFileSync(file, text, { mode: 0o600 })
  return file
}

/** A config on free ports, in memory. */
function sidecar(name: string, baseUrl = 'http://127.0.0.1:9/'): string {
  return config(
    name,
    `listen: 127.0.0.1:0\nadmin: { listen: 127.0.0.1:0 }\nstate: "memory:"\nupstreams:\n  api: { baseUrl: "${baseUrl}", retry: { attempts: 1 } }\n`
  )
}

describe.concurrent('the command line', () => {
  test('prints its version and help, and every command has help', async () => {
    const [version, help] = await Promise.all([run(['--version']), run(['--help'])])
    expect(version).toEqual({ code: 0, out: `${VERSION}\n`, err: '' })
    for (const command of ['run', 'check', 'config', 'explain', 'keys', 'sandbox', 'audit', 'report', 'login']) expect(help.out).toContain(command)
    expect(help.code).toBe(0)
    const helps = await Promise.all(['run', 'explain', 'sandbox', 'audit', 'report'].map((command) => run([command, '--help'])))
    for (const each of helps) expect(each).toMatchObject({ code: 0, out: expect.stringContaining('--config'), err: '' })
  })

  test('says which Node it needs where it is started with an older one', async () => {
    const older = `data:text/javascript,Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.20.2' } })`
    expect(await run(['--version'], {}, ['--import', older])).toEqual({ code: 1, out: '', err: expect.stringMatching(/^attache needs Node 24 or later/) })
  })

  test.each([
    ['an unknown command', ['chek'], 'did you mean check?'],
    ['an unknown option', ['check', '--confg', 'x'], "unknown option '--confg'"],
    ['an option without value', ['check', '--config'], 'argument missing'],
    ['a missing argument', ['explain', 'GET'], "missing required argument 'path'"],
    ['an argument too many', ['check', 'extra'], 'too many arguments'],
    ['a speed that is none', ['check', '--speed', 'fast'], 'a number from 1 to 1000000'],
    ['a period that is none', ['report', '--period', 'lately'], 'a duration such as 12h or 30d'],
    ['no config anywhere', ['check'], 'name a file with --config or ATTACHE_CONFIG'],
    ['no config for the default command', [], 'name a file with --config or ATTACHE_CONFIG']
  ])('ends with 2 for %s', async (_name, args, message) => {
    const { code, err } = await run(args)
    expect({ code, err }).toEqual({ code: 2, err: expect.stringContaining(message) })
  })

  test('says of commands to come that they are not available yet', async () => {
    const { code, err } = await run(['audit', '--format', 'json'])
    expect({ code, err }).toEqual({ code: 1, err: 'attache audit: not available yet\n' })
  })
})

describe.concurrent('attache check', () => {
  test('finds nothing wrong with a good config, named by option or variable', async () => {
    const file = sidecar('good.yaml')
    const [option, variable] = await Promise.all([run(['check', '--config', file]), run(['check'], { ATTACHE_CONFIG: file, ATTACHE_SPEED: '' })])
    expect(option).toEqual({ code: 0, out: `${file}: ok, 1 upstream, 0 credentials, 0 warnings\n`, err: '' })
    expect(variable).toEqual(option)
  })

  test('names everything wrong at once and ends with 1', async () => {
    const file = config(
      'bad.yaml',
      'listn: x\nupstreams:\n  api:\n    baseUrl: ${NOWHERE}\n    retry: { attempts: 0 }\n    spend: [{ name: a, match: /a, cost: 1, currency: DKK }]\n'
    )
    const { code, out, err } = await run(['check', '--config', file])
    expect(code).toBe(1)
    expect(out).toBe(`${file}: refused, 3 problems, 1 warning\n`)
    expect(err.trimEnd().split('\n')).toEqual([
      `${file}:1: listn: unknown key; did you mean listen?`,
      `${file}:4: upstreams.api.baseUrl: the environment variable NOWHERE is not set`,
      `${file}:5: upstreams.api.retry.attempts: must be at least 1`,
      `warning: ${file}:6: upstreams.api.spend: not available yet: upstreams.api.spend is accepted and has no effect`
    ])
  })

  test('refuses surroundings that would give secrets away', async () => {
    const file = sidecar('surrounded.yaml')
    const { code, err } = await run(['check', '--config', file], { NODE_TLS_REJECT_UNAUTHORIZED: '0' })
    expect({ code, err }).toEqual({ code: 1, err: expect.stringContaining('environment: NODE_TLS_REJECT_UNAUTHORIZED=0') })
  })

  test('refuses speed with a URL that is not on loopback', async () => {
    const file = config('remote.yaml', 'upstreams:\n  api: { baseUrl: "https://api.example/" }\n')
    const [slow, fast] = await Promise.all([run(['check', '--config', file]), run(['check', '--config', file], { ATTACHE_SPEED: '60' })])
    expect(slow.code).toBe(0)
    expect(fast).toMatchObject({ code: 1, err: expect.stringContaining('--speed is for rehearsals') })
  })
})

describe.concurrent('attache config and explain', () => {
  test('show what is in force and what would happen, without a secret', async () => {
    const file = config(
      'shown.yaml',
      'credentials:\n  key: { grant: static, header: X-Key, value: "${KEY}" }\nupstreams:\n  api: { baseUrl: "http://127.0.0.1:9/v1/", credential: key, agreement: finfo }\n'
    )
    const environment = { KEY: 'CANARY' }
    const [shown, text, json] = await Promise.all([
      run(['config', '--config', file], environment),
      run(['explain', 'get', '/api/articles/7', '--config', file], environment),
      run(['explain', 'GET', '/api/articles/7', '--format', 'json', '--config', file], environment)
    ])
    expect(shown).toMatchObject({ code: 0, out: expect.stringContaining('"204": 30s # agreement finfo'), err: '' })
    expect(text).toMatchObject({ code: 0, out: expect.stringContaining('credential  key (static): the credential of the upstream'), err: '' })
    expect(JSON.parse(json.out)).toMatchObject({ upstream: 'api', url: 'http://127.0.0.1:9/v1/articles/7', credential: { name: 'key' } })
    expect(shown.out + text.out + json.out).not.toContain('CANARY')
  })
})

describe.concurrent('attache run', () => {
  test('serves until SIGTERM, and ends with 0', async () => {
    const provider = createServer((_request, response) => response.end('hello')).listen(0, '127.0.0.1')
    await new Promise((resolve) => provider.once('listening', resolve))
    const { child, ended, until } = start(['--config', sidecar('served.yaml', `http://127.0.0.1:${(provider.address() as AddressInfo).port}/`)])
    const url = await until(/"data":"([^"]+)"/)
    expect(await (await fetch(`${url}/api/x`)).text()).toBe('hello')
    child.kill('SIGTERM')
    expect((await ended).code).toBe(0)
    provider.close()
  })

  test('ends at once, and not with 0, on a second signal', async () => {
    const provider = createServer(() => undefined).listen(0, '127.0.0.1')
    await new Promise((resolve) => provider.once('listening', resolve))
    const arrived = new Promise((resolve) => provider.once('request', resolve))
    const { child, ended, until } = start(['run', '--config', sidecar('stubborn.yaml', `http://127.0.0.1:${(provider.address() as AddressInfo).port}/`)])
    const url = await until(/"data":"([^"]+)"/)
    const asked = fetch(`${url}/api/never`).then(
      () => 'answered',
      () => 'cut'
    )
    await arrived
    child.kill('SIGTERM')
    await until(/draining/)
    child.kill('SIGINT')
    expect((await ended).code).toBe(1)
    expect(await asked).toBe('cut')
    provider.close()
    provider.closeAllConnections()
  })

  test('refuses a broken config with its findings, before anything listens', async () => {
    const { code, out, err } = await run(['run', '--config', config('broken.yaml', 'listen: nowhere\n')])
    expect({ code, out, err }).toEqual({ code: 1, out: '', err: expect.stringContaining('broken.yaml:1: listen: must be an address') })
  })

  test('refuses a debugger, certificates unchecked, and TLS keys logged', async () => {
    const file = sidecar('hazards.yaml')
    const outcomes = await Promise.all([
      run(['run', '--config', file], {}, ['--inspect=127.0.0.1:0']),
      run(['run', '--config', file], { NODE_TLS_REJECT_UNAUTHORIZED: '0' }),
      run(['run', '--config', file], {}, [`--tls-keylog=${join(folder, 'keys.log')}`])
    ])
    expect(outcomes.map(({ code }) => code)).toEqual([1, 1, 1])
    for (const { err } of outcomes) expect(err).toContain('environment: ')
  })

  test('lets nobody open a debugger later', async () => {
    const { child, ended, until } = start(['run', '--config', sidecar('debugged.yaml')])
    await until(/"data":"/)
    child.kill('SIGUSR1')
    child.kill('SIGTERM')
    const { code, out, err } = await ended
    expect({ code, opened: (out + err).includes('Debugger listening') }).toEqual({ code: 0, opened: false })
  })

  test('loads the config again on SIGHUP; a broken one changes nothing', async () => {
    const file = sidecar('reloaded.yaml')
    const { child, ended, until } = start(['run', '--config', file])
    const url = await until(/"data":"([^"]+)"/)
    const good = readFileSync(file, 'utf8')
    writeFileSync(file, `${good}nonsense: 1\n`)
    child.kill('SIGHUP')
    await until(/nonsense: unknown key/)
    expect((await fetch(`${url}/other/x`)).status).toBe(404)
    writeFileSync(file, `${good}  other: { baseUrl: "http://127.0.0.1:9/", retry: { attempts: 1 } }\n`)
    child.kill('SIGHUP')
    await until(/reload(?!.*failure)[^\n]*success|success[^\n]*reload/)
    expect((await fetch(`${url}/other/x`)).status).toBe(502)
    child.kill('SIGTERM')
    expect((await ended).code).toBe(0)
  })

  test('says which address is taken', async () => {
    const taken = createServer().listen(0, '127.0.0.1')
    await new Promise((resolve) => taken.once('listening', resolve))
    const { port } = taken.address() as AddressInfo
    const { code, err } = await run(['run', '--config', config('taken.yaml', `listen: 127.0.0.1:${port}\nadmin: { listen: 127.0.0.1:0 }\nstate: "memory:"\n`)])
    expect({ code, err }).toEqual({
      code: 1,
      err: expect.stringMatching(/^attache: cannot start: cannot listen on 127\.0\.0\.1:\d+: something else listens there/m)
    })
    taken.close()
  })
})

describe.concurrent('attache sandbox', () => {
  test('starts the strict providers and stops on a signal', async () => {
    const { child, ended, until } = start(['sandbox', '--port', '0'])
    const url = await until(/sandbox on (\S+);/)
    expect((await fetch(`${url}/ledger`)).status).toBe(200)
    child.kill('SIGTERM')
    expect((await ended).code).toBe(0)
  })
})
