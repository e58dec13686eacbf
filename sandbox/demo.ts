import { generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { demoApp, type DemoApp } from './demo/app.ts'
import { startSidecar, type DemoSidecar } from './demo/sidecar.ts'
import { STORY, type Stage } from './demo/story.ts'
import { disagreements, readMetrics, table, type Account } from './demo/table.ts'
import { openSandbox } from './main.ts'
import type { Sandbox } from './server.ts'

const USAGE = `usage: npm run demo -- [--once] [--speed 25] [--ports auto] [--log]

Starts the sandbox providers and the sidecar on loopback, plays an ordinary day with trouble, and shows what happened.
  --once        end afterwards; exit code 0 where everything went as promised
  --speed N     provider seconds in a real one
  --ports auto  any free ports instead of those in config/demo.yaml
  --log         print the sidecar's log as well
`

const CONFIG = join(import.meta.dirname, '../config/demo.yaml')
const READY_WITHIN_MS = 20_000

type Ports = { readonly app: number; readonly admin: number; readonly sandbox: number }

class DemoError extends Error {}

/** Everything the demo has started, to be stopped in reverse. */
type Cast = { readonly ports: Ports; readonly sandbox: Sandbox; readonly sidecar: DemoSidecar; end(): Promise<void> }

async function main(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      once: { type: 'boolean', default: false },
      speed: { type: 'string', default: '25' },
      ports: { type: 'string', default: 'config' },
      log: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false }
    }
  })
  if (values.help) {
    process.stdout.write(USAGE)
    return 0
  }
  const speed = Number(values.speed)
  if (!(speed > 0)) throw new TypeError('--speed is a number above 0')
  if (!['config', 'auto'].includes(values.ports)) throw new TypeError('--ports is config or auto')

  const interrupted = Promise.withResolvers<'interrupted'>()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => interrupted.resolve('interrupted'))
  const cast = await assemble(speed, values.ports === 'auto', values.log)
  try {
    const played = await Promise.race([play(cast, speed), interrupted.promise, cast.sidecar.ended.then(endedEarly(cast.sidecar))])
    if (played === 'interrupted') return 130
    if (values.once) return played.length === 0 ? 0 : 1
    print(invitation(cast.ports))
    await Promise.race([interrupted.promise, cast.sidecar.ended.then(endedEarly(cast.sidecar))])
    return 0
  } finally {
    await cast.end()
  }
}

/** Keys, sandbox, sidecar, in this order; whatever was started is stopped again where a later one fails. */
async function assemble(speed: number, anyPorts: boolean, isLogged: boolean): Promise<Cast> {
  const folder = mkdtempSync(join(tmpdir(), 'attache-demo-'))
  const stops: (() => unknown)[] = [() => rmSync(folder, { recursive: true, force: true })]
  async function end(): Promise<void> {
    for (const stop of stops.toReversed()) await stop()
  }
  try {
    const ports = anyPorts ? await freePorts() : portsOf(readFileSync(CONFIG, 'utf8'))
    if (!anyPorts) await Promise.all(Object.values(ports).map(mustBeFree))
    const { publicKey, privateKey } = generateKeyPairSync('ec', {
      namedCurve: 'P-256',
      publicKeyEncoding: { type: 'spki', format: 'pem' },
      privateKeyEncoding: { type: 'pkcs8', format: 'pem' }
    })

    const sandbox = await openSandbox({ port: ports.sandbox, speed, keys: [publicKey] })
    stops.push(() => sandbox.close())
    print(`sandbox providers on ${sandbox.url}, time ${speed} times faster`)

    const environment = { INFO_CLIENT_SECRET: 'info-secret', PARTNER_KEY: privateKey, DEMO_STATE: `sqlite:${join(folder, 'state.db')}` }
    const sidecar = startSidecar(anyPorts ? movedConfig(folder, ports) : CONFIG, speed, environment, isLogged ? print : undefined)
    stops.push(() => sidecar.stop())
    await readiness(ports.admin, sidecar)
    print(`sidecar on http://127.0.0.1:${ports.app} with ${anyPorts ? 'a copy of ' : ''}config/demo.yaml, key pair and state in ${folder}\n`)
    return { ports, sandbox, sidecar, end }
  } catch (error) {
    await end()
    throw error
  }
}

/** Plays the story and shows the account; gives what did not go as promised. */
async function play({ ports, sandbox }: Cast, speed: number): Promise<string[]> {
  const app: DemoApp = demoApp({ info: `http://127.0.0.1:${ports.app}/info`, partner: `http://127.0.0.1:${ports.app}/partner` })
  const surprises: string[] = []
  const stage: Stage = {
    app,
    async trouble(fault) {
      const armed = await fetch(`${sandbox.url}/faults`, { method: 'POST', body: JSON.stringify(fault) })
      if (!armed.ok) throw new DemoError(`the sandbox refused a fault: ${await armed.text()}`)
    },
    pass: (ms) => sleep(ms / speed),
    expect(isTrue, what) {
      if (!isTrue) surprises.push(`not so: ${what}`)
    }
  }
  for (const step of STORY) {
    const before = surprises.length
    const found = await step.act(stage)
    print(`${surprises.length === before ? good('ok') : bad('!!')}  ${step.says}\n      ${found}`)
  }
  const accounts = await accountsOf(app, sandbox, ports)
  surprises.push(...accounts.flatMap(disagreements))
  print(`\n${table(accounts)}\n`)
  for (const surprise of surprises) print(bad(surprise))
  if (surprises.length === 0) print(good('everything as promised: one token per provider, no clause broken'))
  return surprises
}

async function accountsOf(app: DemoApp, sandbox: Sandbox, ports: Ports): Promise<Account[]> {
  const metrics = readMetrics(await (await fetch(`http://127.0.0.1:${ports.admin}/metrics`)).text())
  sandbox.settle()
  const { violations } = sandbox.ledger.snapshot()
  const account = (title: string, upstream: string, provider: string): Account => ({
    title,
    tally: app.tally(upstream),
    counts: sandbox.ledger.counts(provider),
    violations: violations.filter((violation) => violation.provider === provider),
    metric: (name, labels) => metrics(name, { upstream, ...labels })
  })
  return [account('INFO-Subscription', 'info', 'info-subscription'), account('Integration agreement', 'partner', 'integration')]
}

function invitation({ app, admin, sandbox }: Ports): string {
  return `
It stays up; Ctrl-C ends it. Try, in another terminal:

${[
  [`-i localhost:${app}/info/subscribers/42`, 'again and again: see Cache-Status and Age'],
  [`-i localhost:${app}/partner/customers/c42`],
  [`-i localhost:${app}/partner/nothing-there`, 'never reaches the provider'],
  [`-s localhost:${admin}/metrics | grep ^attache_`, 'what the sidecar counted'],
  [`-s localhost:${sandbox}/ledger`, 'what the providers counted, and every violation'],
  [`-s localhost:${sandbox}/journal`, 'the last calls, one by one'],
  [`-d '{"provider":"integration","kind":"status","status":503,"times":2}' localhost:${sandbox}/faults`],
  [`-i localhost:${app}/partner/customers/c43`, 'waits out both, then 200'],
  [`-d '{"provider":"info-subscription","kind":"revoke-token"}' localhost:${sandbox}/faults`],
  [`-i localhost:${app}/info/subscribers/43`, 'one renewal, one replay']
]
  .map(([what = '', shows = '']) => `  curl ${what.padEnd(46)}  ${shows === '' ? '' : `# ${shows}`}`.trimEnd())
  .join('\n')}
`
}

async function readiness(adminPort: number, sidecar: DemoSidecar): Promise<void> {
  const deadline = performance.now() + READY_WITHIN_MS
  const ended = sidecar.ended.then(endedEarly(sidecar))
  while (performance.now() < deadline) {
    if (await Promise.race([isReady(adminPort), ended])) return
    await Promise.race([sleep(50), ended])
  }
  throw new DemoError(`the sidecar was not ready within ${READY_WITHIN_MS / 1000} s. Its last lines:\n${sidecar.lastLines()}`)
}

async function isReady(adminPort: number): Promise<boolean> {
  try {
    return (await fetch(`http://127.0.0.1:${adminPort}/readyz`)).ok
  } catch {
    // not listening yet
    return false
  }
}

function endedEarly(sidecar: DemoSidecar): (code: number) => never {
  return (code) => {
    throw new DemoError(`the sidecar ended early with code ${code}. Its last lines:\n${sidecar.lastLines()}`)
  }
}

/** The ports the config names. */
function portsOf(config: string): Ports {
  const portAfter = (pattern: RegExp): number => Number(pattern.exec(config)?.[1])
  return {
    app: portAfter(/^listen: 127\.0\.0\.1:(\d+)/m),
    admin: portAfter(/^ {2}listen: 127\.0\.0\.1:(\d+)/m),
    sandbox: portAfter(/Url: http:\/\/127\.0\.0\.1:(\d+)/)
  }
}

/** The config with other ports, in the demo's own folder. */
function movedConfig(folder: string, ports: Ports): string {
  const config = readFileSync(CONFIG, 'utf8')
  const from = portsOf(config)
  const moved = (['app', 'admin', 'sandbox'] as const).reduce((text, name) => text.replaceAll(`127.0.0.1:${from[name]}`, `127.0.0.1:${ports[name]}`), config)
  const file = join(folder, 'demo.yaml')
  writeFileSync(file, moved, { mode: 0o600 })
  return file
}

async function freePorts(): Promise<Ports> {
  const servers = await Promise.all([0, 0, 0].map(listen))
  const [app = 0, admin = 0, sandbox = 0] = servers.map((server) => server.port)
  await Promise.all(servers.map((server) => server.close()))
  return { app, admin, sandbox }
}

async function mustBeFree(port: number): Promise<void> {
  try {
    await (await listen(port)).close()
  } catch {
    throw new DemoError(`port ${port} is in use: stop what listens there, or let the demo choose with npm run demo -- --ports auto`)
  }
}

function listen(port: number): Promise<{ port: number; close(): Promise<void> }> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(port, '127.0.0.1', () => {
      const address = server.address()
      resolve({
        port: typeof address === 'object' && address !== null ? address.port : port,
        close: () => new Promise((closed) => server.close(() => closed()))
      })
    })
  })
}

function print(line: string): void {
  process.stdout.write(`${line}\n`)
}
function good(text: string): string {
  return colour(32, text)
}
function bad(text: string): string {
  return colour(31, text)
}
function colour(code: number, text: string): string {
  return process.stdout.isTTY && process.env['NO_COLOR'] === undefined ? `\u001B[${code}m${text}\u001B[0m` : text
}

// whoever reads (`| head`) has had enough: the story goes on to its end unheard, so that nothing is left running
process.stdout.on('error', () => undefined)
try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  const isOurs = error instanceof DemoError
  process.stderr.write(`demo: ${error instanceof Error ? error.message : String(error)}\n${isOurs ? '' : USAGE}`)
  process.exitCode = isOurs ? 1 : 2
}
