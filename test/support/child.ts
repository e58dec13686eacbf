import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

export type Child = {
  readonly lines: string[]
  /** Resolves with the first line, seen already or still to come, that matches. */
  line(pattern: RegExp): Promise<string>
  /** Resolves with the exit code, null where a signal ended it. */
  readonly ended: Promise<number | null>
  kill(signal: NodeJS.Signals): void
  readonly pid: number
}

/** Runs a TypeScript file with the Node that runs the tests, collecting what it prints. */
export function child(script: string, args: readonly string[], options: { uid?: number; env?: NodeJS.ProcessEnv; openFiles?: number } = {}): Child {
  const command = [process.execPath, '--disable-warning=ExperimentalWarning', script, ...args]
  const limited = options.openFiles === undefined ? command : ['sh', '-c', `ulimit -n ${options.openFiles}; exec "$0" "$@"`, ...command]
  const started: ChildProcess = spawn(limited[0] ?? '', limited.slice(1), {
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(options.env === undefined ? {} : { env: { PATH: process.env['PATH'], ...options.env } }),
    ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.uid })
  })
  const lines: string[] = []
  const waiting = new Set<() => void>()
  for (const stream of [started.stdout, started.stderr]) {
    if (stream === null) continue
    createInterface({ input: stream }).on('line', (line) => {
      lines.push(line)
      for (const look of waiting) look()
    })
  }
  const ended = once(started, 'close').then(([code]: (number | null)[]) => code ?? null)

  function line(pattern: RegExp): Promise<string> {
    return new Promise((resolve, reject) => {
      function look(): void {
        const found = lines.find((candidate) => pattern.test(candidate))
        if (found === undefined) return
        waiting.delete(look)
        resolve(found)
      }
      waiting.add(look)
      void ended.then(() => reject(new Error(`ended without a line like ${pattern}:\n${lines.join('\n')}`)))
      look()
    })
  }
  return { lines, line, ended, kill: (signal) => void started.kill(signal), pid: started.pid ?? 0 }
}
