import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { child } from './child.ts'

export type SidecarProcess = {
  readonly dataUrl: string
  readonly adminUrl: string
  /** Everything written to standard output and standard error so far. */
  output(): string
  /** Sends the signal and resolves with the exit code once the process is gone; null where the signal killed it. */
  end(signal: NodeJS.Signals): Promise<number | null>
  signal(signal: NodeJS.Signals): void
  /** Resolves with the first line of output that matches. */
  line(pattern: RegExp): Promise<string>
  readonly pid: number
}

/** The sidecar as its users run it: a process of its own, found ready by the line it logs. */
export async function sidecarProcess(
  configFile: string,
  options: { environment?: NodeJS.ProcessEnv; arguments?: readonly string[]; openFiles?: number } = {}
): Promise<SidecarProcess> {
  const running = child('src/main.ts', ['run', '--config', configFile, ...(options.arguments ?? [])], {
    env: options.environment ?? {},
    ...(options.openFiles === undefined ? {} : { openFiles: options.openFiles })
  })
  const ready = JSON.parse(await running.line(/"msg":"ready"/)) as { data: string; admin: string }
  return {
    dataUrl: ready.data,
    adminUrl: ready.admin,
    pid: running.pid,
    output: () => running.lines.join('\n'),
    line: (pattern) => running.line(pattern),
    signal: (signal) => running.kill(signal),
    end(signal) {
      running.kill(signal)
      return running.ended
    }
  }
}

/** A folder with one config, for sidecar processes that live in it one after the other or at the same time. */
export type SidecarHome = {
  readonly folder: string
  start(): Promise<SidecarProcess>
  /** Kills those that still live, and removes the folder. */
  remove(): Promise<void>
}

/** `config` is YAML without its addresses; `state` in it may be relative to the folder. */
export function sidecarHome(config: string, environment: NodeJS.ProcessEnv = {}): SidecarHome {
  const folder = mkdtempSync(join(tmpdir(), 'attache-home-'))
  const configFile = join(folder, 'attache.yaml')
  writeFileSync(configFile, `version: 1\nlisten: 127.0.0.1:0\nadmin: { listen: 127.0.0.1:0 }\n${config}\n`)
  const started: SidecarProcess[] = []
  return {
    folder,
    async start() {
      const sidecar = await sidecarProcess(configFile, { environment })
      started.push(sidecar)
      return sidecar
    },
    async remove() {
      await Promise.all(started.map((sidecar) => sidecar.end('SIGKILL')))
      rmSync(folder, { recursive: true, force: true })
    }
  }
}
