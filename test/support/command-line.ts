import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'

export type Ran = { readonly code: number | null; readonly out: string; readonly err: string }

const MAIN = join(import.meta.dirname, '../../src/main.ts')

/** Runs `attache ARGS…` from source as a process of its own, in `cwd`, without the settings of whoever runs the tests. */
export async function attache(args: readonly string[], cwd: string): Promise<Ran> {
  const { ATTACHE_CONFIG: _config, ATTACHE_SPEED: _speed, ...env } = process.env
  const started = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', MAIN, ...args], { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] })
  const ended = once(started, 'close')
  const [out, err] = await Promise.all([text(started.stdout), text(started.stderr)])
  await ended
  return { code: started.exitCode, out, err }
}
