import type { Duplex } from 'node:stream'
import { Pool, errors, type Dispatcher } from 'undici'
import type { Send } from '../exchange/chain.ts'
import { NO_BODY, type Body, type Request, type Response } from '../exchange/message.ts'
import { CallerGone, Problem } from '../exchange/problem.ts'
import type { UpstreamTools } from '../exchange/tools.ts'
import { isNamed, type Fields } from '../http/fields.ts'
import { AnswerStream } from './answer-stream.ts'
import { connector } from './connector.ts'
import { failureOf } from './failures.ts'

export type TransportOptions = {
  /** `http(s)://host[:port]/base/path/`: where the upstream lives. */
  readonly baseUrl: string
  readonly connectMs: number
  /** Connections to the provider at once; more attempts wait for one. */
  readonly connections: number
  /** Fields of an answer, all together; agreements ask clients to be generous (IA-25). */
  readonly answerHeaderBytes: number
  /** PEM of a private certification authority, trusted instead of those node knows. */
  readonly ca?: string | undefined
  /** Removes from an answer's fields what must not cross. */
  readonly clean: (fields: Fields) => Fields
}

/** Sends attempts to one upstream. */
export type Transport = { readonly send: Send; close(): Promise<void> }

/** llhttp's words for a `Content-Length` beside a `Transfer-Encoding`. */
const TWO_FRAMINGS = "Content-Length can't be present with Transfer-Encoding"

/** Answers of known length up to here are read whole and travel as bytes. */
const SMALL_ANSWER_BYTES = 64 * 1024
const ANSWER_HEADER_LINES = 1000
/** `100`, `102` and `103` answers before the real one; more is an attack. */
const INFORMATIONAL_ANSWERS = 32
// Providers close idle connections after 30 s or more; leaving earlier spares the race (IA-42).
const IDLE_SOCKET_MS = 25_000

/**
 * The only room that speaks to a provider: one attempt, one undici dispatch, no policy. Certificates are always verified,
 * redirects are never followed, nothing is repeated.
 *
 * Rejects with `upstream-unreachable`, `upstream-protocol` or `upstream-timeout`, or with the signal's reason.
 */
export function transport(options: TransportOptions, tools: UpstreamTools): Transport {
  const { clock } = tools
  const base = new URL(options.baseUrl)
  const basePath = base.pathname.endsWith('/') ? base.pathname.slice(0, -1) : base.pathname
  // one pool per client certificate: a connection is as much a credential as a header
  const pools = new Map<string, Pool>()

  function poolFor(request: Request): Pool {
    const certificate = request.clientCertificate
    const id = certificate?.id ?? ''
    const known = pools.get(id)
    if (known !== undefined) return known
    // a renewed certificate must not keep company with connections made by the old one
    if (certificate !== undefined) {
      for (const [other, pool] of pools) {
        if (other === '') continue
        pools.delete(other)
        void pool.close()
      }
    }
    const tls =
      certificate === undefined
        ? {}
        : { cert: certificate.cert, key: certificate.key, ...(certificate.passphrase === undefined ? {} : { passphrase: certificate.passphrase }) }
    const pool = new Pool(base.origin, {
      connections: options.connections,
      pipelining: 1,
      allowH2: false,
      connect: connector({ connectMs: options.connectMs, tls: { ...(options.ca === undefined ? {} : { ca: options.ca }), ...tls } }, clock),
      // the timeout policy keeps time for header and body
      headersTimeout: 0,
      bodyTimeout: 0,
      keepAliveTimeout: 4000,
      keepAliveMaxTimeout: IDLE_SOCKET_MS,
      maxHeaderSize: options.answerHeaderBytes
    })
    pools.set(id, pool)
    return pool
  }

  function send(request: Request): Promise<Response> {
    return new Promise((resolve, reject) => {
      const { signal, trace } = request
      if (signal.aborted) return reject(signal.reason)
      trace.sent = false
      trace.attempts += 1
      const attempt = new Attempt(request, { resolve, reject, clean: options.clean, tools })
      poolFor(request).dispatch(
        {
          path: basePath + request.target,
          method: request.method,
          headers: framed(request),
          upgrade: request.upgrade ?? null,
          body: request.body.kind === 'none' ? null : request.body.kind === 'bytes' ? request.body.bytes : request.body.stream
        },
        attempt
      )
      return undefined
    })
  }

  return {
    send,
    async close() {
      await Promise.all([...pools.values()].map((pool) => pool.destroy()))
    }
  }
}

// undici frames the body itself; a stream of known size must be announced or it would be chunked
function framed(request: Request): string[] {
  const { body, fields } = request
  if (body.kind === 'stream' && body.sizeBytes !== undefined) return [...fields, 'content-length', String(body.sizeBytes)]
  return fields as string[]
}

type Outlet = {
  readonly resolve: (response: Response) => void
  readonly reject: (reason: unknown) => void
  readonly clean: TransportOptions['clean']
  readonly tools: UpstreamTools
}

/** One attempt under way: undici's callbacks on one side, the promise of a `Response` on the other. */
class Attempt implements Dispatcher.DispatchHandler {
  readonly #request: Request
  readonly #outlet: Outlet
  readonly #startedAt: number
  #controller: Dispatcher.DispatchController | undefined
  #informational = 0
  #answer: { status: number; fields: Fields } | undefined
  #chunks: Buffer[] | undefined
  #stream: AnswerStream | undefined
  #isCounted = false
  #isOver = false

  constructor(request: Request, outlet: Outlet) {
    this.#request = request
    this.#outlet = outlet
    this.#startedAt = outlet.tools.clock.now()
    request.signal.addEventListener('abort', this.#onAbort)
    outlet.tools.report({ kind: 'attempt-started', upstream: request.upstream })
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
    // left while waiting for a connection: nothing has been sent, and nothing will be
    if (this.#request.signal.aborted) return controller.abort(asError(this.#request.signal.reason))
    this.#request.trace.sent = true
  }

  onRequestUpgrade(controller: Dispatcher.DispatchController, status: number, _fields: unknown, tunnel: Duplex): void {
    // undici has taken its own listeners off: a reset would otherwise end the process
    tunnel.on('error', () => tunnel.destroy())
    this.#settle()
    this.#count(String(status), 'success')
    const fields = this.#outlet.clean(decoded(controller.rawHeaders))
    this.#outlet.resolve({ status, fields, body: NO_BODY, source: 'upstream', tunnel })
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number): void {
    // nobody asked for another protocol (101)
    if (status < 100 || status > 599 || status === 101) throw malformed('the answer’s status makes no sense')
    if (status < 200) {
      this.#informational += 1
      if (this.#informational > INFORMATIONAL_ANSWERS) throw malformed('the provider sends interim answers without end')
      this.#request.interim?.(status, this.#outlet.clean(decoded(controller.rawHeaders)))
      return
    }
    const received = decoded(controller.rawHeaders)
    // each is a slice of the 64 KiB they arrived in, which would be held for as long as the body flows
    controller.rawHeaders = []
    if (received.length > 2 * ANSWER_HEADER_LINES) throw malformed('the answer has too many header lines')
    const { sizeBytes, locations } = framingOf(received)
    if (locations > 1) throw malformed('the answer has two Location fields')
    this.#count(String(status), status >= 500 || status === 429 ? 'failure' : 'success')
    this.#answer = { status, fields: this.#outlet.clean(received) }
    this.#request.heard?.(0)
    if (this.#request.method === 'HEAD' || status === 204 || status === 304) return
    this.#chunks = []
    if (sizeBytes !== undefined && sizeBytes <= SMALL_ANSWER_BYTES) return
    // A small answer of unknown length mostly arrives in one piece with its header: then it is over before this is run.
    queueMicrotask(() => this.#becomeStream(controller, sizeBytes))
  }

  #becomeStream(controller: Dispatcher.DispatchController, sizeBytes: number | undefined): void {
    if (this.#isOver) return
    const stream = new AnswerStream(controller)
    for (const chunk of this.#chunks ?? []) stream.arrived(chunk)
    this.#chunks = undefined
    this.#stream = stream
    this.#outlet.resolve(this.#response({ kind: 'stream', stream, sizeBytes }))
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#request.heard?.(chunk.length)
    if (this.#stream !== undefined) this.#stream.arrived(chunk)
    else this.#chunks?.push(chunk)
  }

  onResponseEnd(): void {
    this.#settle()
    if (this.#stream !== undefined) {
      this.#stream.push(null)
      return
    }
    const chunks = this.#chunks
    if (chunks === undefined || chunks.length === 0) return this.#outlet.resolve(this.#response(NO_BODY))
    const [first] = chunks
    const bytes = chunks.length === 1 && first !== undefined ? first : Buffer.concat(chunks)
    return this.#outlet.resolve(this.#response({ kind: 'bytes', bytes }))
  }

  onResponseError(_controller: Dispatcher.DispatchController | null, error: Error): void {
    // said of a trailer, once the header is over: the body is complete, and its length none of a trailer's business (RFC 9110 §6.5.1)
    if (this.#answer !== undefined && error instanceof errors.HTTPParserError && error.message.includes(TWO_FRAMINGS)) return this.onResponseEnd()
    this.#fail(this.#request.signal.aborted ? this.#request.signal.reason : failureOf(error))
  }

  #response(body: Body): Response {
    const { status, fields } = this.#answer ?? { status: 502, fields: [] }
    return { status, fields, body, source: 'upstream' }
  }

  // an initializer, not an assignment in the constructor: docs/decisions/16
  readonly #onAbort = (): void => this.#abandon(this.#request.signal.reason)

  #abandon(reason: unknown): void {
    this.#controller?.abort(asError(reason))
    this.#fail(reason)
  }

  #fail(reason: unknown): void {
    this.#settle()
    this.#count(errorCodeOf(reason), reason instanceof CallerGone ? 'cancelled' : 'failure')
    if (this.#stream !== undefined) this.#stream.destroy(asError(reason))
    else this.#outlet.reject(reason)
  }

  // once per attempt, at its header or at its failure before one
  #count(code: string, result: 'success' | 'failure' | 'cancelled'): void {
    if (this.#isCounted) return
    this.#isCounted = true
    const { upstream, operation, trace } = this.#request
    const durationMs = this.#outlet.tools.clock.now() - this.#startedAt
    trace.upstreamMs += durationMs
    this.#outlet.tools.report({ kind: 'attempt', upstream, operation, code, result, durationMs })
  }

  #settle(): void {
    this.#isOver = true
    this.#request.signal.removeEventListener('abort', this.#onAbort)
  }
}

/** The `code` label of an attempt without a status. */
function errorCodeOf(reason: unknown): string {
  if (reason instanceof Problem) return reason.details.proxyError ?? reason.code
  return reason instanceof CallerGone ? 'cancelled' : 'error'
}

function malformed(detail: string): Problem {
  return new Problem('upstream-protocol', { detail })
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error('aborted', { cause: reason })
}

/** What has to be known of an answer's fields before anything else, in one pass. */
function framingOf(fields: Fields): { sizeBytes: number | undefined; locations: number } {
  let length: string | undefined
  let locations = 0
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string
    if (name.length === 14 && isNamed(name, 'content-length')) length ??= fields[i + 1]
    else if (name.length === 8 && isNamed(name, 'location')) locations += 1
  }
  return { sizeBytes: length !== undefined && /^\d+$/.test(length) ? Number(length) : undefined, locations }
}

// undici gives the wire's bytes; latin-1 keeps each of them as one character (RFC 9110 §5.5)
function decoded(raw: Dispatcher.DispatchController['rawHeaders']): string[] {
  const fields: string[] = []
  for (const part of Array.isArray(raw) ? raw : []) fields.push(typeof part === 'string' ? part : part.toString('latin1'))
  return fields
}
