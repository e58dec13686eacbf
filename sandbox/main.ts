import { parseArgs } from 'node:util'
import { readFileSync } from 'node:fs'
import type { SandboxClock } from './clock.ts'
import { connect } from './providers/connect.ts'
import { dinero } from './providers/dinero.ts'
import { finfo } from './providers/finfo.ts'
import { infoSubscription } from './providers/info-subscription.ts'
import { integration } from './providers/integration.ts'
import { startSandbox, type Sandbox } from './server.ts'

const USAGE = `usage: node sandbox/main.ts [--port 7700] [--host 127.0.0.1] [--speed 1] [--latency 100] [--key PUBLIC.pem]…

Strict fake providers with a violation ledger at GET /ledger.
  --port N     0 for any free port
  --speed N    provider seconds in a real one
  --latency N  real milliseconds a message may be under way before it counts as late
  --key FILE   a public key of integration-demo (PEM or JWK); more by POST /integration/keys
`

export type SandboxSettings = {
  readonly port?: number
  readonly host?: string
  readonly speed?: number
  readonly clock?: SandboxClock
  readonly latencyMs?: number
  readonly keys?: readonly string[]
}

/** The sandbox with all its providers; for the command and for the demo. */
export function openSandbox(settings: SandboxSettings = {}): Promise<Sandbox> {
  const { keys = [], ...options } = settings
  return startSandbox({ ...options, providers: [infoSubscription(), integration({ keys }), finfo(), dinero(), connect()] })
}

async function main(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      port: { type: 'string', default: '7700' },
      host: { type: 'string', default: '127.0.0.1' },
      speed: { type: 'string', default: '1' },
      latency: { type: 'string', default: '100' },
      key: { type: 'string', multiple: true, default: [] },
      help: { type: 'boolean', default: false }
    }
  })
  if (values.help) {
    process.stdout.write(USAGE)
    return 0
  }
  const sandbox = await openSandbox({
    port: Number(values.port),
    host: values.host,
    speed: Number(values.speed),
    latencyMs: Number(values.latency),
    keys: values.key.map((file) => readFileSync(file, 'utf8'))
  })
  process.stdout.write(`sandbox on ${sandbox.url} (${[...sandbox.providers.keys()].join(', ')}); ledger at ${sandbox.url}/ledger\n`)
  const stopped = Promise.withResolvers<void>()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stopped.resolve())
  await stopped.promise
  await sandbox.close()
  return 0
}

if (import.meta.main) {
  try {
    process.exitCode = await main(process.argv.slice(2))
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n${USAGE}`)
    process.exitCode = 2
  }
}
