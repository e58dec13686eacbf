import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { loadConfig } from '../../src/config/load.ts'
import { startSidecar, type Sidecar } from '../../src/server/sidecar.ts'
import { steadyTime, type SteadyTime } from './steady-time.ts'

export type TestSidecar = Sidecar & {
  readonly folder: string
  readonly configFile: string
  readonly logFile: string
  /** The time it lives in: a busy machine does not make it late. */
  readonly time: SteadyTime
  /** Replaces the config file's text; call `reload` to put it in force. */
  rewrite(config: string): void
  metrics(): Promise<string>
  /** The value of one series, 0 where it does not exist yet; `labels` as written in the exposition format. */
  metric(name: string, labels?: Readonly<Record<string, string>>): Promise<number>
  stop(): Promise<number>
}

/**
 * A real sidecar in this process on free loopback ports. `config` is YAML; `version`, `listen`, `admin` and `state` get
 * values for tests unless the text has its own.
 */
export async function testSidecar(
  config: string,
  options: { speed?: number; environment?: NodeJS.ProcessEnv; folder?: string; time?: SteadyTime } = {}
): Promise<TestSidecar> {
  const folder = options.folder ?? mkdtempSync(join(tmpdir(), 'attache-test-'))
  const configFile = join(folder, 'attache.yaml')
  const logFile = join(folder, 'attache.log')
  rewrite(config)
  const { speed = 1, time = steadyTime() } = options
  const sidecar = await startSidecar(() => loadConfig(configFile, options.environment ?? {}, { speed }), {
    speed,
    logFile,
    clock: time.sidecarClock(speed)
  })

  function rewrite(text: string): void {
    const defaults = { version: '1', listen: '127.0.0.1:0', admin: '{ listen: 127.0.0.1:0 }', state: '"memory:"' }
    const head = Object.entries(defaults).filter(([key]) => !new RegExp(`^${key}:`, 'm').test(text))
    writeFileSync(configFile, `${head.map(([key, value]) => `${key}: ${value}\n`).join('')}${text}\n`, { mode: 0o600 })
  }
  async function metrics(): Promise<string> {
    return (await fetch(`${sidecar.adminUrl}/metrics`)).text()
  }
  return {
    ...sidecar,
    folder,
    configFile,
    logFile,
    time,
    rewrite,
    metrics,
    async metric(name, labels = {}) {
      const wanted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`)
      return (await metrics())
        .split('\n')
        .filter((line) => (line.startsWith(`${name}{`) || line.startsWith(`${name} `)) && wanted.every((pair) => line.includes(pair)))
        .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0)
    },
    async stop() {
      time.go()
      const code = await sidecar.drain()
      if (options.time === undefined) time.close()
      if (options.folder === undefined) rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
      return code
    }
  }
}
