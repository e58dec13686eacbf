import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Clock } from '../exchange/clock.ts'
import { Problem } from '../exchange/problem.ts'
import { fieldList, hasField } from '../http/fields.ts'
import { localAnswer } from './local-answer.ts'
import { STATUS_CODES, createServer } from './node-http.ts'

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

/** Real milliseconds for which a refused caller may go on sending before its connection is closed. */
const LAST_WORD_MS = 200

/** Emitted on an answer that waits for the rest of its request: it will not come. */
export const SPOILED = 'spoiled'

/** A node server with every limit and timeout set here, whatever the defaults of node or Fastify are. */
export function httpServer(limits: ServerLimits, handler: () => Handler, clock: Clock): Server {
  const server = createServer({
    maxHeaderSize: limits.headerBytes,
    headersTimeout: limits.headerMs,
    // Bodies may be long and slow: the data port watches their progress instead.
    requestTimeout: 0,
    connectionsCheckingInterval: 1000,
    keepAliveTimeout: limits.keepAliveMs,
    insecureHTTPParser: false,
    // the checks do, in our words
    requireHostHeader: false,
    noDelay: true,
    shouldUpgradeCallback(message) {
      if (limits.isUpgrade(message)) return true
      ignored = message
      return false
    }
  })
  // node forgets what it has read behind a request whose upgrade is ignored: such a connection cannot go on
  let ignored: IncomingMessage | undefined
  // the answer last begun on a connection, in a holder made once: entries of weak maps are dear to the garbage collector
  const latest = new WeakMap<Duplex, { response: ServerResponse }>()

  function receive(message: IncomingMessage, response: ServerResponse): void {
    if (message === ignored) {
      ignored = undefined
      response.shouldKeepAlive = false
    }
    const holder = latest.get(message.socket)
    if (holder === undefined) latest.set(message.socket, { response })
    else holder.response = response
    handler().request(message, response)
  }

  // whoever pipelines behind a request must not get an answer before it
  function isOwed(socket: Duplex): boolean {
    return latest.get(socket)?.response.writableFinished === false
  }

  // beyond this number node would hide lines silently: count them all, the checks refuse too many
  server.maxHeadersCount = 0
  server.maxConnections = limits.connections
  server.timeout = 0
  server.maxRequestsPerSocket = 0

  server.on('request', receive)
  // a body is asked for (100) by whoever reads it, once nothing speaks against it
  server.on('checkContinue', receive)
  server.on('checkExpectation', receive)
  server.on('upgrade', (message, socket, head) => (isOwed(socket) ? socket.destroy() : handler().upgrade(message, socket, head)))
  server.on('connect', (_message, socket) => {
    if (isOwed(socket)) return socket.destroy()
    return refuse(socket, new Problem('bad-request', { status: 405, detail: 'CONNECT is never passed on' }), clock)
  })
  server.on('clientError', (error: NodeJS.ErrnoException, socket) => {
    if (error.code === 'ECONNRESET') return void socket.destroy()
    // our last word on this connection is on its way
    if (socket.writableEnded) return undefined
    const response = latest.get(socket)?.response
    if (response === undefined || !isOwed(socket)) return refuse(socket, clientProblem(error), clock)
    return spoiled(socket, response, error, clock)
  })
  return server
}

/** Bytes that are no request, while an answer is owed: it must not be taken for the answer to them, nor theirs for it. */
function spoiled(socket: Duplex, response: ServerResponse, error: NodeJS.ErrnoException, clock: Clock): void {
  const isOwnBody = !response.req.complete
  // it is the body of this very request that is broken, and nobody has answered yet
  if (isOwnBody && response.socket === socket && !response.headersSent) return refuse(socket, clientProblem(error), clock)
  // it is answered already, or never will be
  if (isOwnBody) return response.emit(SPOILED) ? undefined : void socket.destroy()
  if (!response.shouldKeepAlive) return undefined
  response.shouldKeepAlive = false
  response.once('finish', () => socket.end())
  return undefined
}

function clientProblem(error: NodeJS.ErrnoException): Problem {
  if (error.code === 'HPE_HEADER_OVERFLOW')
    return new Problem('headers-too-large', { detail: 'the request header is over the limit (limits.headerBytes)', cause: error })
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT')
    return new Problem('bad-request', { status: 408, detail: 'the request header did not arrive in time', cause: error })
  return new Problem('bad-request', { detail: 'the request is not well-formed HTTP', cause: error })
}

/** Answers on a bare socket, where there is no request to answer, and closes it: a little later, or unread bytes would reset it (RFC 9112 §9.6). */
export function refuse(socket: Duplex, problem: Problem, clock: Clock): void {
  const answer = localAnswer(problem, { upstream: undefined, requestId: 'none' })
  const lines = [`HTTP/1.1 ${answer.status} ${STATUS_CODES[answer.status] ?? ''}`, 'Connection: close']
  for (let i = 0; i < answer.fields.length; i += 2) lines.push(`${answer.fields[i]}: ${answer.fields[i + 1]}`)
  const bytes = answer.body.kind === 'bytes' ? answer.body.bytes : Buffer.alloc(0)
  lines.push(`Content-Length: ${bytes.length}`)
  const timer = clock.after(LAST_WORD_MS / clock.realMs(1), () => socket.destroy())
  socket.on('error', () => socket.destroy())
  socket.once('end', () => socket.destroy())
  socket.once('close', () => timer.cancel())
  socket.end(Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), bytes]))
  socket.resume()
}

/** The one upgrade that is passed on (RFC 6455 §4.1); a body would be taken for what comes after the handshake. */
export function isWebsocket(message: IncomingMessage): boolean {
  const fields = message.rawHeaders
  return (
    message.method === 'GET' &&
    fieldList(fields, 'upgrade')?.toLowerCase() === 'websocket' &&
    !hasField(fields, 'content-length') &&
    !hasField(fields, 'transfer-encoding')
  )
}
