import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { Problem } from '../exchange/problem.ts'
import { field } from '../http/fields.ts'
import { localAnswer } from './local-answer.ts'

/** What becomes of requests and upgrades; swapped whole on a reload, while connections stay. */
export type Handler = {
  request(message: IncomingMessage, response: ServerResponse): void
  upgrade(message: IncomingMessage, socket: Duplex, head: Buffer): void
}

export type ServerLimits = {
  /** All fields of a request together. */
  readonly headerBytes: number
  /** From the first byte of a request to the end of its header. */
  readonly headerMs: number
  /** Idle keep-alive connections of the app are closed after this long. */
  readonly keepAliveMs: number
  readonly connections: number
  /** Whether an `Upgrade` request is one we pass on; any other `Upgrade` is a hop-by-hop field to ignore (RFC 9110 §7.8). */
  readonly isUpgrade: (message: IncomingMessage) => boolean
}

/** A node server with every limit and timeout set here, whatever the defaults of node or Fastify are. */
export function httpServer(limits: ServerLimits, handler: () => Handler): Server {
  const server = createServer({
    maxHeaderSize: limits.headerBytes,
    headersTimeout: limits.headerMs,
    // Bodies may be long and slow: the data port watches their progress instead.
    requestTimeout: 0,
    connectionsCheckingInterval: 1000,
    keepAliveTimeout: limits.keepAliveMs,
    insecureHTTPParser: false,
    requireHostHeader: true,
    noDelay: true,
    shouldUpgradeCallback: limits.isUpgrade
  })
  // beyond this number node would hide lines silently: count them all, the checks refuse too many
  server.maxHeadersCount = 0
  server.maxConnections = limits.connections
  server.timeout = 0
  server.maxRequestsPerSocket = 0

  server.on('request', (message, response) => handler().request(message, response))
  server.on('upgrade', (message, socket, head) => handler().upgrade(message, socket, head))
  server.on('connect', (_message, socket) => refuse(socket, new Problem('bad-request', { status: 405, detail: 'CONNECT is never passed on' })))
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (!socket.writable || error.code === 'ECONNRESET') return void socket.destroy()
    return refuse(socket, clientProblem(error))
  })
  return server
}

function clientProblem(error: NodeJS.ErrnoException): Problem {
  if (error.code === 'HPE_HEADER_OVERFLOW')
    return new Problem('headers-too-large', { detail: 'the request header is over the limit (limits.headers)', cause: error })
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT')
    return new Problem('bad-request', { status: 408, detail: 'the request header did not arrive in time', cause: error })
  return new Problem('bad-request', { detail: 'the request is not well-formed HTTP', cause: error })
}

/** Answers on a bare socket, where there is no request to answer, and closes it. */
export function refuse(socket: Duplex, problem: Problem): void {
  const answer = localAnswer(problem, { upstream: undefined, requestId: 'none' })
  const lines = [`HTTP/1.1 ${answer.status} ${problem.code}`, 'Connection: close']
  for (let i = 0; i < answer.fields.length; i += 2) lines.push(`${answer.fields[i]}: ${answer.fields[i + 1]}`)
  const bytes = answer.body.kind === 'bytes' ? answer.body.bytes : Buffer.alloc(0)
  lines.push(`Content-Length: ${bytes.length}`)
  socket.on('error', () => socket.destroy())
  socket.end(Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), bytes]), () => socket.destroy())
}

/** The one upgrade that is passed on. */
export function isWebsocket(message: IncomingMessage): boolean {
  return (field(message.rawHeaders, 'upgrade') ?? '').toLowerCase() === 'websocket'
}
