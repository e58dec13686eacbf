import { Cancellation } from '../exchange/signal.ts'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Readable } from 'node:stream'
import { NO_BODY, pathOf, type Request, type Response, type Trace } from '../exchange/message.ts'
import { CallerGone, Problem } from '../exchange/problem.ts'
import { field, fieldValues, isNamed, keepFields, withoutField, type Fields } from '../http/fields.ts'
import { linksIn, sidecarLinks, sidecarReference } from '../http/target.ts'
import type { Door, DownstreamTools } from './door.ts'
import { SPOILED } from './http-server.ts'
import { localAnswer } from './local-answer.ts'
import { join, switchingProtocols } from './tunnel.ts'
import { hasBody } from './upload.ts'
import { wishesOf, withoutWishes } from './wishes.ts'

/** Bodies up to here leave in the same write as their header; above, copying costs more than a second buffer. */
const ONE_WRITE_BYTES = 16 * 1024
/** Real milliseconds for which the rest of an upload is still read after its answer. */
const LINGER_MS = 2000

/** What both ends of a websocket agree on between themselves (RFC 6455 §4). */
const HANDSHAKE = /^sec-websocket-/i

/** Says to the page of a listed origin that it may read the answer; the checks let no other get as far. */
export function browserFields(origin: string | undefined): string[] {
  return origin === undefined ? [] : ['Access-Control-Allow-Origin', origin, 'Access-Control-Expose-Headers', '*', 'Vary', 'Origin']
}

/** One request of a caller and the one answer to it: conversion both ways, whatever becomes of either connection. */
export class Exchange {
  readonly #message: IncomingMessage
  readonly #response: ServerResponse
  readonly #door: Door | undefined
  readonly #tools: DownstreamTools
  readonly #startedAt: number
  readonly #id: string
  readonly #target: string
  readonly #caller = new Cancellation()
  readonly #trace: Trace = { attempts: 0, upstreamMs: 0, waitMs: 0, tokenMs: 0, sent: false }
  #operation = 'other'
  #source: Response['source'] = 'local'
  #problem: Problem | undefined
  readonly #staysOpen: boolean
  #isStranger = false
  #isBroken = false
  #upload: Readable | undefined
  #body: Readable | undefined

  constructor(message: IncomingMessage, response: ServerResponse, door: Door | undefined, tools: DownstreamTools) {
    this.#message = message
    this.#response = response
    this.#door = door
    this.#tools = tools
    this.#startedAt = tools.clock.now()
    this.#id = tools.nextId()
    const behind = (message.url ?? '/').slice(door?.prefix.length ?? 0)
    this.#target = behind.startsWith('/') ? behind : `/${behind}`
    this.#staysOpen = tools.underWay(1)
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
    const credential = door.credentialOf(method, path)
    if (credential !== undefined && door.isTokenService(path))
      throw new Problem('bad-request', { status: 403, detail: 'tokens are obtained here, not asked for through here' })
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
      signal: this.#caller,
      deadlineAt: Number.POSITIVE_INFINITY,
      wishes: wishesOf(received),
      credential,
      interim: this.#interim,
      trace: this.#trace
    }
  }

  upgradeRequest(): Request {
    const request = this.#request(NO_BODY)
    return { ...request, upgrade: 'websocket', fields: [...request.fields, ...keepFields(this.#message.rawHeaders, (name) => HANDSHAKE.test(name))] }
  }

  /** The answer to an upgrade. */
  goOn(answer: Response, head: Buffer): void {
    const { tunnel } = answer
    if (tunnel === undefined) return this.answer(answer)
    const response = this.#response
    const { socket } = this.#message
    if (response.destroyed || socket.destroyed) return void tunnel.destroy()
    this.#source = answer.source
    response.detachSocket(socket)
    socket.write(switchingProtocols('websocket', answer.fields), 'latin1')
    join(socket, tunnel, head)
    return this.#over(101, false)
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
    // An event stream may stay silent after its header: the caller must have the header now. Not by flushHeaders(), which
    // would write its bytes as UTF-8.
    response.write('', 'latin1')
    if (isWhole) {
      if (body.kind === 'bytes' && this.#message.method !== 'HEAD') response.write(body.bytes)
      this.#linger()
      return
    }
    this.#body = body.stream
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
   * might lose the answer (RFC 9112 §9.6). So the rest is read and thrown away while it keeps coming, for a moment.
   */
  #linger(): void {
    const { clock } = this.#tools
    const message = this.#message
    const response = this.#response
    const whole = clock.after(LINGER_MS / clock.realMs(1), end)
    const silence = clock.after(LINGER_MS / 10 / clock.realMs(1), end)
    function end(): void {
      whole.cancel()
      silence.cancel()
      response.end()
    }
    this.#upload?.destroy()
    message.on('data', () => silence.refresh())
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
    const { body, status } = answer
    const page = this.#tools.servesBrowsers && !this.#isStranger ? field(this.#message.rawHeaders, 'origin') : undefined
    // a browser takes no answer with two: ours stands for a provider's that is let through
    const fields = page === undefined ? answer.fields : withoutField(answer.fields, 'access-control-allow-origin')
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
    if (page !== undefined) outgoing.push(...browserFields(page))
    if (this.#isStranger || (this.#tools.isDraining() && !this.#staysOpen) || this.#hasUnreadUpload()) outgoing.push('Connection', 'close')
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
    if (isCutShort) {
      this.#caller.abort(new CallerGone())
      // nobody reads the rest: without this the provider's connection would wait for ever
      this.#body?.destroy()
    }
    // nginx's number for a caller that left before the answer's header
    this.#over(callerGone && !this.#response.headersSent ? 499 : this.#response.statusCode, callerGone)
  }

  #over(status: number, callerGone: boolean): void {
    this.#tools.underWay(-1)
    this.#tools.report({
      kind: 'request',
      id: this.#id,
      upstream: this.#door?.upstream ?? 'none',
      operation: this.#operation,
      method: this.#message.method ?? 'other',
      status,
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
