import { chmodSync, lstatSync, rmSync } from 'node:fs'
import type { Server } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import type { ListenAddress } from '../exchange/options.ts'
import { isLoopback as isLoopbackName } from '../http/loopback.ts'

/** Starts listening. Rejects with a sentence that names the address and the way out where it is taken. */
export async function listen(server: Server, address: ListenAddress): Promise<void> {
  if (address.kind === 'unix') await removeLeftover(address.path)
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(new Error(refusal(error, address), { cause: error })))
    if (address.kind === 'unix') server.listen(address.path, resolve)
    else server.listen(address.port, address.host, resolve)
  })
  // whoever can open the socket acts with the company's credentials
  if (address.kind === 'unix') chmodSync(address.path, 0o600)
}

/** What tells listeners apart: the address, so that one goes on when another upstream takes it over; where any port will do, the upstream. */
export function listenerKey(upstream: string, address: ListenAddress): string {
  if (address.kind === 'unix') return `unix:${address.path}`
  return address.port === 0 ? upstream : `${hostOf(address)}:${address.port}`
}

export function closed(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve())
  })
}

// for everything but callers and the connections made for them
const RESERVED_FILES = 64

/** How many callers the process can serve at once: each may need a connection to a provider too, and both are open files. */
export function affordableConnections(): number {
  const { userLimits } = process.report.getReport() as { userLimits?: { open_files?: { soft?: unknown } } }
  const openFiles = userLimits?.open_files?.soft
  return typeof openFiles === 'number' ? Math.max(1, Math.floor((openFiles - RESERVED_FILES) / 2)) : Infinity
}

/** How many connections are open on these servers together. */
export async function connectionsOf(servers: readonly Server[]): Promise<number> {
  const counts = await Promise.all(
    servers.map((server) => new Promise<number>((resolve) => server.getConnections((error, count) => resolve(error === null ? count : 0))))
  )
  return counts.reduce((sum, count) => sum + count, 0)
}

/** Where a listening server can be reached, with the port it was given where the config asks for any. */
export function urlOf(server: Server, address: ListenAddress): string {
  if (address.kind === 'unix') return `unix:${address.path}`
  const { port } = server.address() as AddressInfo
  return `http://${hostOf(address)}:${port}`
}

export function isLoopback(address: ListenAddress): boolean {
  return address.kind === 'unix' || isLoopbackName(hostOf(address).toLowerCase())
}

function hostOf(address: Extract<ListenAddress, { kind: 'tcp' }>): string {
  return address.host.includes(':') ? `[${address.host}]` : address.host
}

function refusal(error: NodeJS.ErrnoException, address: ListenAddress): string {
  const name = address.kind === 'unix' ? `unix:${address.path}` : `${hostOf(address)}:${address.port}`
  if (error.code === 'EADDRINUSE') return `cannot listen on ${name}: something else listens there; stop it or change listen in the config`
  if (error.code === 'EACCES') return `cannot listen on ${name}: not permitted; ports below 1024 need a privilege`
  return `cannot listen on ${name}: ${error.code ?? 'unknown error'}`
}

// A socket left behind by a crash would keep the address taken for ever; one that somebody answers is not ours to remove.
async function removeLeftover(path: string): Promise<void> {
  if (lstatSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return
  const isAnswered = await new Promise<boolean>((resolve) => {
    const probe = connect(path)
    probe.once('connect', () => resolve(true)).once('error', () => resolve(false))
    probe.once('close', () => probe.destroy())
  })
  if (!isAnswered) rmSync(path, { force: true })
}
