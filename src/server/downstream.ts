import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Readable } from 'node:stream'
import type { Send } from '../exchange/chain.ts'
import type { Report } from '../exchange/events.ts'
import type { Clock } from '../exchange/clock.ts'
import { pathOf, type Request, type Response, type Trace } from '../exchange/message.ts'
import { CallerGone, Problem } from '../exchange/problem.ts'
import { field, fieldValues, isNamed, type Fields } from '../http/fields.ts'
import { linksIn, sidecarLinks, sidecarReference } from '../http/target.ts'
import { SPOILED } from './http-server.ts'
import { localAnswer } from './local-answer.ts'
import { hasBody, receiveBody, type UploadLimits } from './upload.ts'
import { wishesOf, withoutWishes } from './wishes.ts'

/** Bodies up to here leave in the same write as their header; above, copying costs more than a second buffer. */
const ONE_WRITE_BYTES = 16 * 1024
/** Real milliseconds for which the rest of an upload is still read after its answer. */
const LINGER_MS = 2000

/** One upstream as the data port sees it: how requests are made ready for it, and where they go. */
export type Door = {
  readonly upstream: string
  /** What stands for the provider here: `/finfo`, or empty on a port of the upstream's own. */
  readonly prefix: string
  readonly base: URL
  /** Removes from a request what must not cross. */
  readonly clean: (fields: Fields) => string[]
  /** Set on every call: configured headers, `User-Agent`, `Via`. */
  readonly injected: Fields
  readonly credentialOf: (method: string, path: string) => string | undefined
  readonly operationOf: (method: string, path: string) => string
  readonly send: Send
  readonly upload: UploadLimits
}

export type DownstreamTools = {
  readonly clock: Clock
  readonly report: Report
  readonly nextId: () => string
  /** Whether any browser origin is listed: its answers then say that the page may read them. */
  readonly servesBrowsers: boolean
  /** Told of every request at its header and once more when it is over. */
  readonly underWay: (change: 1 | -1) => void
  /** While draining, callers are told to open their next connection elsewhere. */
  readonly isDraining: () => boolean
}

/** Carries one request of the app through the chain and its answer back: conversion, nothing else. */
export async function serve(message: IncomingMessage, response: ServerResponse, door: Door, tools: DownstreamTools): Promise<void> {
  const exchange = new Exchange(message, response, door, tools)
  try {
    const request = exchange.request(receiveBody(message, response, door.upload, tools.clock))
    exchange.answer(await door.send(request instanceof Promise ? await request : request))
  } catch (error) {
    exchange.fail(error)
  }
}

/** Answers a path of our own (`/_attache/…`): `rooms` gives the handler by what the path begins with; the rest is an id. */
export async function serveOwn(
  message: IncomingMessage,
  response: ServerResponse,
  rooms: Readonly<Record<string, (method: string, id: string) => Promise<Response | undefined>>>,
  tools: DownstreamTools
): Promise<void> {
  const exchange = new Exchange(message, response, undefined, tools)
  try {
    const path = pathOf(message.url ?? '/')
    const [start, handle] = Object.entries(rooms).find(([beginning]) => path.startsWith(beginning)) ?? []
    const answer = handle === undefined || start === undefined ? undefined : await handle(message.method ?? 'GET', path.slice(start.length))
    if (answer === undefined) throw new Problem('unknown-operation', { detail: 'nothing here, or no longer' })
    exchange.answer(answer)
  } catch (error) {
    exchange.fail(error)
  }
}

/** Answers a request that has no upstream. */
export function refuseRequest(message: IncomingMessage, response: ServerResponse, problem: Problem, tools: DownstreamTools): void {
  new Exchange(message, response, undefined, tools).fail(problem)
}

/** Answers somebody who is not listened to, and closes the connection: whoever sent this is no caller of ours. */
export function turnAway(message: IncomingMessage, response: ServerResponse, problem: Problem, tools: DownstreamTools): void {
  new Exchange(message, response, undefined, tools).turnAway(problem)
}

/** Answers the preflight request of a listed origin (the checks have refused all others); it never goes upstream. */
export function answerPreflight(message: IncomingMessage, response: ServerResponse): void {
  const asked = field(message.rawHeaders, 'access-control-request-headers')
  response
    .writeHead(204, [
      ...browserFields(message.rawHeaders),
      'Access-Control-Allow-Methods',
      'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS',
      ...(asked === undefined ? [] : ['Access-Control-Allow-Headers', asked]),
      'Access-Control-Max-Age',
      '600'
    ])
    .end()
}

// the checks let only listed origins get as far as an answer with these
function browserFields(fields: Fields): string[] {
  const allowed = field(fields, 'origin')
  return allowed === undefined ? [] : ['Access-Control-Allow-Origin', allowed, 'Access-Control-Expose-Headers', '*', 'Vary', 'Origin']
}

class Exchange {
  readonly #message: IncomingMessage
  readonly #response: ServerResponse
  readonly #door: Door | undefined
  readonly #tools: DownstreamTools
  readonly #startedAt: number
  readonly #id: string
  readonly #target: string
  readonly #caller = new AbortController()
  readonly #trace: Trace = { attempts: 0, upstreamMs: 0, waitMs: 0, tokenMs: 0, sent: false }
  #operation = 'other'
  #source: Response['source'] = 'local'
  #problem: Problem | undefined
  #isStranger = false
  #isBroken = false
  #upload: Readable | undefined

  constructor(message: IncomingMessage, response: ServerResponse, door: Door | undefined, tools: DownstreamTools) {
    this.#message = message
    this.#response = response
    this.#door = door
    this.#tools = tools
    this.#startedAt = tools.clock.now()
    this.#id = tools.nextId()
    const behind = (message.url ?? '/').slice(door?.prefix.length ?? 0)
    this.#target = behind.startsWith('/') ? behind : `/${behind}`
    tools.underWay(1)
    // fires once in every case: after the last byte, or when the caller hangs up before it
    response.on('close', () => this.#closed())
  }

  request(body: Request['body'] | Promise<Request['body']>): Request | Promise<Request> {
    return body instanceof Promise ? body.then((received) => this.#request(received)) : this.#request(body)
  }

  #request(body: Request['body']): Request {
    const door = this.#door
    if (door === undefined) throw new Problem('unknown-upstream')
    if (body.kind === 'stream') this.#upload = body.stream
    const method = this.#message.method ?? 'GET'
    const received = this.#message.rawHeaders
    const path = pathOf(this.#target)
    this.#operation = door.operationOf(method, path)
    const fields = door.clean(withoutWishes(received))
    fields.push(...door.injected)
    return {
      id: this.#id,
      upstream: door.upstream,
      method,
      target: this.#target,
      operation: this.#operation,
      fields,
      body,
      signal: this.#caller.signal,
      deadlineAt: Number.POSITIVE_INFINITY,
      wishes: wishesOf(received),
      credential: door.credentialOf(method, path),
      interim: this.#interim,
      trace: this.#trace
    }
  }

  // 103 is for the app to start early, and only its links can be of use before the answer; 100 is said here, 102 says nothing
  readonly #interim = (status: number, fields: Fields): void => {
    const response = this.#response
    const door = this.#door
    if (status !== 103 || door === undefined || response.headersSent || response.destroyed || this.#message.httpVersion === '1.0') return
    const link = fieldValues(fields, 'link').flatMap((value) => linksIn(sidecarLinks(value, this.#target, door.base, door.prefix)))
    if (link.length > 0) response.writeEarlyHints({ link })
  }

  answer(answer: Response): void {
    const { body } = answer
    const response = this.#response
    this.#source = answer.source
    if (response.destroyed) {
      if (body.kind === 'stream') body.stream.destroy()
      return
    }
    response.writeHead(answer.status, this.#outgoing(answer))
    const isWhole = body.kind !== 'stream'
    if (isWhole && !this.#hasUnreadUpload()) {
      if (body.kind === 'none' || this.#message.method === 'HEAD') response.end()
      // node sends header and body in one write when both are strings; latin-1 keeps every byte
      else if (body.bytes.length <= ONE_WRITE_BYTES) response.end(body.bytes.toString('latin1'), 'latin1')
      else this.#watchReader().end(body.bytes)
      return
    }
    // an event stream may stay silent after its header: the caller must have the header now
    response.flushHeaders()
    if (isWhole) {
      if (body.kind === 'bytes' && this.#message.method !== 'HEAD') response.write(body.bytes)
      this.#linger()
      return
    }
    body.stream.on('error', (error) => this.#breakOff(error))
    body.stream.on('end', () => (this.#hasUnreadUpload() ? this.#linger() : response.end()))
    body.stream.pipe(this.#watchReader(), { end: false })
  }

  #breakOff(error: Error): void {
    this.#isBroken = true
    if (error instanceof Problem) this.#problem = error
    this.#response.destroy()
  }

  // an upload may be answered before it has arrived; what is left of it would be taken for the next request
  #hasUnreadUpload(): boolean {
    return !this.#message.complete && hasBody(this.#message.rawHeaders)
  }

  /**
   * Ends an answer that came before the end of its request: a connection closed with bytes unread is reset, and the caller
   * might lose the answer (RFC 9112 §9.6). So the rest is read and thrown away, for a moment.
   */
  #linger(): void {
    const { clock } = this.#tools
    const message = this.#message
    const timer = clock.after(LINGER_MS / clock.realMs(1), end)
    const response = this.#response
    function end(): void {
      timer.cancel()
      response.end()
    }
    this.#upload?.destroy()
    message.once('end', end)
    message.once('close', end)
    response.once(SPOILED, end)
    message.resume()
  }

  // a caller that takes nothing of what is there for it is gone in all but name
  #watchReader(): ServerResponse {
    const response = this.#response
    const patienceMs = this.#door === undefined ? 0 : this.#tools.clock.realMs(this.#door.upload.bodyMs)
    return response.setTimeout(patienceMs, () => {
      if (response.writableLength > 0) response.destroy()
    })
  }

  turnAway(problem: Problem): void {
    this.#isStranger = true
    this.fail(problem)
  }

  fail(error: unknown): void {
    if (error instanceof CallerGone || this.#response.destroyed) {
      this.#response.destroy()
      return
    }
    this.#problem = error instanceof Problem ? error : new Problem('internal', { cause: error })
    if (!(error instanceof Problem))
      this.#tools.report({ kind: 'warning', about: 'internal', message: error instanceof Error ? (error.stack ?? error.message) : String(error) })
    this.answer(localAnswer(this.#problem, { upstream: this.#door?.upstream, requestId: this.#id }))
  }

  // the provider's fields, references rewritten, framing and our own marks added
  #outgoing(answer: Response): string[] {
    const { fields, body, status } = answer
    const outgoing: string[] = []
    let announced: string | undefined
    for (let i = 0; i < fields.length; i += 2) {
      const name = fields[i] as string
      const value = fields[i + 1] as string
      switch (name.length) {
        case 4:
          outgoing.push(name, isNamed(name, 'link') && this.#door !== undefined ? sidecarLinks(value, this.#target, this.#door.base, this.#door.prefix) : value)
          break
        case 8:
          outgoing.push(name, isNamed(name, 'location') ? this.#reference(value) : value)
          break
        case 14:
          if (isNamed(name, 'content-length')) announced = value
          else outgoing.push(name, value)
          break
        case 16:
          outgoing.push(name, isNamed(name, 'content-location') ? this.#reference(value) : value)
          break
        default:
          outgoing.push(name, value)
      }
    }
    const length = body.kind === 'bytes' ? String(body.bytes.length) : body.kind === 'stream' ? body.sizeBytes?.toString() : (announced ?? '0')
    // a HEAD or 304 may announce the length of what it leaves out, but need not (RFC 9110 §8.6)
    const isLengthless = status === 204 || (body.kind === 'none' && announced === undefined && (status === 304 || this.#message.method === 'HEAD'))
    if (length !== undefined && !isLengthless) outgoing.push('Content-Length', length)
    if (answer.cacheStatus !== undefined) outgoing.push('Cache-Status', `attache; ${answer.cacheStatus}`)
    outgoing.push('Via', '1.1 attache', 'Attache-Attempts', String(this.#trace.attempts), 'Server-Timing', this.#timing())
    if (this.#tools.servesBrowsers && !this.#isStranger) outgoing.push(...browserFields(this.#message.rawHeaders))
    if (this.#isStranger || this.#tools.isDraining() || this.#hasUnreadUpload()) outgoing.push('Connection', 'close')
    return outgoing
  }

  #reference(value: string): string {
    // a path of our own is right as it is
    return this.#door === undefined || this.#source === 'local' ? value : sidecarReference(value, this.#target, this.#door.base, this.#door.prefix)
  }

  #timing(): string {
    const { upstreamMs, waitMs, tokenMs } = this.#trace
    const total = this.#tools.clock.now() - this.#startedAt
    let timing = `attache;dur=${Math.max(0, total - upstreamMs - waitMs - tokenMs).toFixed(1)}`
    if (upstreamMs > 0) timing += `, upstream;dur=${upstreamMs.toFixed(1)}`
    if (waitMs > 0) timing += `, wait;dur=${waitMs.toFixed(1)}`
    if (tokenMs > 0) timing += `, token;dur=${tokenMs.toFixed(1)}`
    return timing
  }

  #closed(): void {
    const isCutShort = !this.#response.writableFinished
    const callerGone = isCutShort && !this.#isBroken
    if (isCutShort) this.#caller.abort(new CallerGone())
    this.#tools.underWay(-1)
    this.#tools.report({
      kind: 'request',
      id: this.#id,
      upstream: this.#door?.upstream ?? 'none',
      operation: this.#operation,
      method: this.#message.method ?? 'other',
      // nginx's number for a caller that left before the answer's header
      status: callerGone && !this.#response.headersSent ? 499 : this.#response.statusCode,
      source: this.#source,
      problem: this.#problem?.code,
      attempts: this.#trace.attempts,
      durationMs: this.#tools.clock.now() - this.#startedAt,
      upstreamMs: this.#trace.upstreamMs,
      waitMs: this.#trace.waitMs,
      tokenMs: this.#trace.tokenMs,
      callerGone
    })
  }
}
