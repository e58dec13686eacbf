/** Child processes of the benchmark: pinned to a core, watched, ended. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { openSync, readFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { availableParallelism } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'

/** The proxy has a core to itself; load and origin share the other. Where that cannot be had, nothing is pinned. */
export const PROXY_CORE = 0
export const OTHER_CORE = 1
export const PINNED = availableParallelism() >= 2 && installed('taskset')

const READY_TIMEOUT_MS = 60_000
const STOP_TIMEOUT_MS = 15_000

export type Started = {
  readonly pid: number
  /** Milliseconds from start to the first accepted connection. */
  readonly readyMs: number
  /** Processor time it had used by then: steadier than `readyMs` on a machine others use too. */
  readonly readyProcessorMs: number | undefined
  stop(): Promise<void>
}

export function installed(command: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${command}`]).status === 0
}

export type StartOptions = { readonly core: number; readonly port: number; readonly logFile: string; readonly env?: Readonly<Record<string, string>> }

/** Starts a server and waits until it accepts connections; what it prints goes to `logFile`. */
export async function start(command: readonly string[], options: StartOptions): Promise<Started> {
  const [file = '', ...args] = pinned(command, options.core)
  const log = openSync(options.logFile, 'a')
  const startedAt = performance.now()
  const child = spawn(file, args, { stdio: ['ignore', log, log], env: { ...process.env, ...options.env } })
  running.add(child)
  child.once('exit', () => running.delete(child))
  await accepting(options.port, child, options.logFile)
  const pid = child.pid ?? 0
  return { pid, readyMs: performance.now() - startedAt, readyProcessorMs: processorMs(pid), stop: () => stop(child) }
}

/** Runs a command to its end and gives what it printed; fails where it fails. */
export async function run(command: readonly string[], core: number): Promise<string> {
  const [file = '', ...args] = pinned(command, core)
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  running.add(child)
  const printed = { out: '', err: '' }
  child.stdout.setEncoding('utf8').on('data', (text: string) => (printed.out += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (printed.err += text))
  const [code] = await once(child, 'close')
  running.delete(child)
  if (code !== 0) throw new Error(`${command[0]} ended with ${code}: ${printed.err || printed.out}`)
  return printed.out
}

/** Resident memory in bytes, all of it or what belongs to no file; undefined where the system does not tell. */
export function residentBytes(pid: number, part: 'VmRSS' | 'RssAnon' = 'VmRSS'): number | undefined {
  try {
    const kilobytes = new RegExp(`^${part}:\\s+(\\d+) kB$`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
    return kilobytes === undefined ? undefined : Number(kilobytes) * 1024
  } catch (error) {
    if (error instanceof Error && 'code' in error) return undefined
    throw error
  }
}

/** Processor time used so far, in clock ticks of 10 ms; undefined where the system does not tell. */
export function processorMs(pid: number): number | undefined {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
    return (Number(fields[11]) + Number(fields[12])) * 10
  } catch (error) {
    if (error instanceof Error && 'code' in error) return undefined
    throw error
  }
}

/** A port nobody listens on right now. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no port to be had')
  return address.port
}

const running = new Set<ChildProcess>()
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => process.exit(130))

function pinned(command: readonly string[], core: number): string[] {
  return PINNED ? ['taskset', '-c', String(core), ...command] : [...command]
}

async function accepting(port: number, child: ChildProcess, logFile: string): Promise<void> {
  const until = performance.now() + READY_TIMEOUT_MS
  while (performance.now() < until) {
    if (child.exitCode !== null) break
    if (await connects(port)) return
    await sleep(5)
  }
  child.kill('SIGKILL')
  throw new Error(`${child.spawnargs.join(' ')} does not accept connections\n${readFileSync(logFile, 'utf8').slice(-2000)}`)
}

function connects(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' })
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = once(child, 'exit')
  child.kill('SIGTERM')
  const giveUp = setTimeout(() => child.kill('SIGKILL'), STOP_TIMEOUT_MS)
  await gone
  clearTimeout(giveUp)
}
