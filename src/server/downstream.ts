import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Send } from '../exchange/chain.ts'
import type { Report } from '../exchange/events.ts'
import type { Clock } from '../exchange/clock.ts'
import type { Request, Response, Trace } from '../exchange/message.ts'
import { CallerGone, Problem } from '../exchange/problem.ts'
import { isNamed, type Fields } from '../http/fields.ts'
import { sidecarLinks, sidecarReference } from '../http/target.ts'
import { localAnswer } from './local-answer.ts'
import { hasBody, receiveBody, type UploadLimits } from './upload.ts'
import { wishesOf, withoutWishes } from './wishes.ts'

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
  /** While draining, callers are told to open their next connection elsewhere. */
  readonly isDraining: () => boolean
}

/** Carries one request of the app through the chain and its answer back: conversion, nothing else. */
export async function serve(message: IncomingMessage, response: ServerResponse, door: Door, tools: DownstreamTools): Promise<void> {
  const exchange = new Exchange(message, response, door, tools)
  try {
    const request = exchange.request(receiveBody(message, door.upload, tools.clock))
    exchange.answer(await door.send(request instanceof Promise ? await request : request))
  } catch (error) {
    exchange.fail(error)
  }
}

/** Answers a request that has no upstream. */
export function refuseRequest(message: IncomingMessage, response: ServerResponse, problem: Problem, tools: DownstreamTools): void {
  new Exchange(message, response, undefined, tools).fail(problem)
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

  constructor(message: IncomingMessage, response: ServerResponse, door: Door | undefined, tools: DownstreamTools) {
    this.#message = message
    this.#response = response
    this.#door = door
    this.#tools = tools
    this.#startedAt = tools.clock.now()
    this.#id = tools.nextId()
    const behind = (message.url ?? '/').slice(door?.prefix.length ?? 0)
    this.#target = behind.startsWith('/') ? behind : `/${behind}`
    // fires once in every case: after the last byte, or when the caller hangs up before it
    response.on('close', () => this.#closed())
  }

  request(body: Request['body'] | Promise<Request['body']>): Request | Promise<Request> {
    return body instanceof Promise ? body.then((received) => this.#request(received)) : this.#request(body)
  }

  #request(body: Request['body']): Request {
    const door = this.#door
    if (door === undefined) throw new Problem('unknown-upstream')
    const method = this.#message.method ?? 'GET'
    const received = this.#message.rawHeaders
    const queryAt = this.#target.indexOf('?')
    const path = queryAt === -1 ? this.#target : this.#target.slice(0, queryAt)
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
      trace: this.#trace
    }
  }

  answer(answer: Response): void {
    const { body } = answer
    const response = this.#response
    this.#source = answer.source
    if (response.destroyed) {
      if (body.kind === 'stream') body.stream.destroy()
      return
    }
    const fields = this.#outgoing(answer)
    if (body.kind === 'none') {
      response.writeHead(answer.status, fields).end()
      return
    }
    if (body.kind === 'bytes') {
      response.writeHead(answer.status, fields).end(this.#message.method === 'HEAD' ? undefined : body.bytes)
      return
    }
    response.writeHead(answer.status, fields)
    // an event stream may stay silent after its header: the caller must have the header now
    response.flushHeaders()
    body.stream.on('error', () => response.destroy())
    body.stream.pipe(response)
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
    // what is left of an unread upload would be taken for the next request
    if (this.#tools.isDraining() || (!this.#message.complete && hasBody(this.#message.rawHeaders))) outgoing.push('Connection', 'close')
    return outgoing
  }

  #reference(value: string): string {
    return this.#door === undefined ? value : sidecarReference(value, this.#target, this.#door.base, this.#door.prefix)
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
    const callerGone = !this.#response.writableFinished
    if (callerGone) this.#caller.abort(new CallerGone())
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
