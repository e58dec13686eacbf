import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export type RealRedis = {
  readonly port: number
  readonly url: string
  /** Sends one inline command on a connection of its own and gives the raw answer. */
  command(text: string): Promise<string>
  start(...options: string[]): Promise<void>
  kill(): Promise<void>
  freeze(): void
  thaw(): void
  /** Kills it and removes its directory. */
  remove(): Promise<void>
}

/** A real redis-server without persistence, on a free loopback port, in a directory of its own. Not started yet. */
export async function realRedis(binary: string): Promise<RealRedis> {
  const port = await freePort()
  const folder = mkdtempSync(join(tmpdir(), 'attache-redis-'))
  let server: ChildProcess | undefined

  async function start(...options: string[]): Promise<void> {
    const fixed = ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--save', '', '--appendonly', 'no']
    const started = spawn(binary, [...fixed, '--enable-debug-command', 'local', ...options], { stdio: ['ignore', 'pipe', 'inherit'] })
    server = started
    let log = ''
    for await (const chunk of started.stdout) {
      log += String(chunk)
      if (log.includes('Ready to accept connections')) break
    }
    if (!log.includes('Ready to accept connections')) throw new Error(`redis-server did not start:\n${log}`)
  }

  async function kill(): Promise<void> {
    const dying = server
    server = undefined
    if (dying === undefined) return
    const gone = once(dying, 'exit')
    dying.kill('SIGKILL')
    await gone
  }

  return {
    port,
    url: `redis://127.0.0.1:${port}/0`,
    command: (text) => inline(port, text),
    start,
    kill,
    freeze: () => void server?.kill('SIGSTOP'),
    thaw: () => void server?.kill('SIGCONT'),
    async remove() {
      await kill()
      rmSync(folder, { recursive: true, force: true })
    }
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

async function inline(port: number, text: string): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  socket.write(`${text}\r\nQUIT\r\n`)
  let answer = ''
  for await (const chunk of socket) answer += String(chunk)
  return answer.replace(/\+OK\r\n$/, '')
}
