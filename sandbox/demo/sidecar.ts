import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { extname, join } from 'node:path'

export type DemoSidecar = {
  /** Resolves with the exit code when it has ended. */
  readonly ended: Promise<number>
  /** Its last words. */
  lastLines(): string
  stop(): Promise<void>
}

const MAIN = join(import.meta.dirname, `../../src/main${extname(import.meta.filename)}`)
const KEPT_LINES = 25
const PATIENCE_MS = 5000

/** Starts the real sidecar as a process of its own. */
export function startSidecar(config: string, speed: number, environment: Readonly<Record<string, string>>, print?: (line: string) => void): DemoSidecar {
  const child = spawn(process.execPath, [MAIN, 'run', '--config', config, '--speed', String(speed)], {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'pipe']
  })
  const lines: string[] = []
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      for (const line of text.split('\n').filter((each) => each !== '')) {
        lines.push(line)
        if (lines.length > KEPT_LINES) lines.shift()
        print?.(line)
      }
    })
  }
  const ended = new Promise<number>((resolve) => {
    child.once('error', (error) => {
      lines.push(error.message)
      resolve(1)
    })
    child.once('exit', (code, signal) => resolve(code ?? (signal === null ? 1 : 0)))
  })
  return {
    ended,
    lastLines: () => lines.join('\n'),
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return
      child.kill('SIGTERM')
      const kill = setTimeout(() => child.kill('SIGKILL'), PATIENCE_MS)
      await once(child, 'exit')
      clearTimeout(kill)
    }
  }
}
