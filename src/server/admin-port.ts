import { timingSafeEqual, createHash } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import fastify, { type FastifyError, type FastifyReply, type FastifyRequest } from 'fastify'
import { Problem } from '../exchange/problem.ts'
import type { Secret } from '../exchange/secret.ts'
import { field } from '../http/fields.ts'
import { callerOf, type Caller } from './checks.ts'
import type { Handler } from './http-server.ts'
import { localAnswer } from './local-answer.ts'
import { SCHEMALESS } from './schemaless.ts'

/** What the admin port can show and do; the sidecar supplies it, always for the configuration in force. */
export type Operator = {
  isReady(): boolean
  metrics(): Promise<{ text: string; contentType: string }>
  status(): Record<string, unknown>
  report(): Promise<unknown>
  explain(method: string, path: string): unknown
  /** Drops stored answers; undefined where the upstream is unknown. Without an upstream, of all of them. */
  purgeCache(upstream: string | undefined, prefix: string): Promise<number | undefined>
  /** Ends a latch or pause of a credential and gets another token. False where it has none to renew; rejects with a `Problem`. */
  renewCredential(credential: string): Promise<boolean>
  /** False where the upstream is unknown. */
  setBreaker(upstream: string, state: 'open' | 'closed' | 'auto'): boolean
}

export type AdminOptions = {
  readonly check: (caller: Caller) => void
  readonly isLoopback: boolean
  readonly token: (() => Secret) | undefined
}

// what an orchestrator asks for; harmless enough to answer on every address
const PUBLIC_PATHS = new Set(['/livez', '/readyz', '/metrics'])
const NOTHING_HERE = 'nothing here; there are /metrics, /api/status, /api/report, /livez and /readyz'
const BREAKER_STATES = ['open', 'closed', 'auto'] as const

/** The operator's side: health, metrics, status and the few switches there are. */
export async function adminPort(operator: Operator, options: AdminOptions): Promise<Handler & { close(): Promise<void> }> {
  const app = fastify({
    logger: false,
    requestIdHeader: false,
    bodyLimit: 64 * 1024,
    return503OnClosing: false,
    exposeHeadRoutes: true,
    schemaController: SCHEMALESS,
    frameworkErrors
  })

  // a target that no router can read is judged by the same checks as any other
  function frameworkErrors(error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
    try {
      options.check(callerOf(request.raw))
      respond(reply, asBadRequest(error))
    } catch (refusal) {
      respond(reply, refusal instanceof Problem ? refusal : asBadRequest(refusal))
    }
  }

  // what changes something is said in JSON, which a page of another site cannot send without asking first
  app.removeContentTypeParser('text/plain')
  app.addHook('onRequest', async (request) => {
    // on other addresses probes come with the pod's address as Host: these three answer, everything else needs the token
    if (!options.isLoopback && PUBLIC_PATHS.has(pathOf(request))) return
    options.check(callerOf(request.raw))
    if (options.token === undefined && options.isLoopback) return
    if (options.token === undefined) throw new Problem('client-not-allowed', { status: 404, detail: 'set admin.token to use the admin API on this address' })
    if (!hasToken(request.raw, options.token())) throw new Problem('client-not-allowed', { detail: 'send Authorization: Bearer with the admin token' })
  })
  app.setErrorHandler((error, _request, reply) => respond(reply, error instanceof Problem ? error : asBadRequest(error)))
  app.setNotFoundHandler((request, reply) => {
    const methods = (['GET', 'PUT', 'POST', 'DELETE'] as const).filter((method) => app.findRoute({ method, url: pathOf(request) }) !== null)
    if (methods.length === 0) return respond(reply, new Problem('unknown-operation', { detail: NOTHING_HERE }))
    return respond(reply, new Problem('unknown-operation', { status: 405, detail: `use ${methods.join(' or ')}`, fields: ['Allow', methods.join(', ')] }))
  })

  app.get('/livez', async () => ({ status: 'ok' }))
  app.get('/readyz', async (_request, reply) => {
    if (operator.isReady()) return { status: 'ready' }
    return respond(reply, new Problem('draining'))
  })
  app.get('/metrics', async (_request, reply) => {
    const { text, contentType } = await operator.metrics()
    return reply.type(contentType).send(text)
  })
  app.get('/api/status', async () => operator.status())
  app.get('/api/report', async () => operator.report())
  app.post('/api/explain', async (request) => {
    const { method, path } = textMembers(request.body, ['method', 'path'])
    return operator.explain(method.toUpperCase(), path)
  })
  app.delete('/api/cache', async (request) => {
    const query = new URLSearchParams(request.url.split('?')[1] ?? '')
    const dropped = await operator.purgeCache(query.get('upstream') ?? undefined, query.get('prefix') ?? '/')
    if (dropped === undefined) throw new Problem('unknown-upstream', { detail: 'no upstream has this name' })
    return { dropped }
  })
  app.post<{ Params: { credential: string } }>('/api/credentials/:credential/renew', async (request) => {
    const { credential } = request.params
    if (!(await operator.renewCredential(credential))) throw new Problem('unknown-operation', { detail: 'no credential of this name has a token to renew' })
    return { credential, renewed: true }
  })
  app.put<{ Params: { upstream: string } }>('/api/breakers/:upstream', async (request) => {
    const { state } = textMembers(request.body, ['state'])
    const wanted = BREAKER_STATES.find((known) => known === state)
    if (wanted === undefined) throw new Problem('bad-request', { detail: 'state is one of open, closed, auto' })
    if (!operator.setBreaker(request.params.upstream, wanted)) throw new Problem('unknown-upstream', { detail: 'no upstream has this name' })
    return { upstream: request.params.upstream, state: wanted }
  })
  await app.ready()

  return {
    request(message, response) {
      if (field(message.rawHeaders, 'expect')?.toLowerCase() === '100-continue') response.writeContinue()
      app.routing(message, response)
    },
    upgrade: (_message, socket) => void socket.destroy(),
    close: () => app.close()
  }
}

function respond(reply: FastifyReply, problem: Problem): FastifyReply {
  const answer = localAnswer(problem, { upstream: undefined, requestId: 'admin' })
  for (let i = 0; i < answer.fields.length; i += 2) reply.header(answer.fields[i] as string, answer.fields[i + 1])
  return reply.code(answer.status).send(answer.body.kind === 'bytes' ? answer.body.bytes : undefined)
}

const REFUSED: Readonly<Record<number, string>> = { 413: 'the body is larger than 64 KiB', 415: 'send application/json' }

// Fastify's own refusals: a target that is none, a body that is not JSON, a content type it does not read
function asBadRequest(error: unknown): Problem {
  const status = error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number' ? error.statusCode : 500
  if (status >= 500) return new Problem('internal', { cause: error })
  return new Problem('bad-request', { status, detail: REFUSED[status] ?? 'this is not what the endpoint reads', cause: error })
}

function textMembers<const Names extends readonly string[]>(body: unknown, names: Names): Record<Names[number], string> {
  const members: Record<string, string> = {}
  for (const name of names) {
    const value = typeof body === 'object' && body !== null ? Object.entries(body).find(([key]) => key === name)?.[1] : undefined
    if (typeof value !== 'string') throw new Problem('bad-request', { detail: `send a JSON object with ${names.join(' and ')}` })
    members[name] = value
  }
  return members as Record<Names[number], string>
}

function pathOf(request: FastifyRequest): string {
  return request.url.split('?')[0] ?? '/'
}

function hasToken(message: IncomingMessage, token: Secret): boolean {
  const given = /^bearer (.+)$/i.exec(field(message.rawHeaders, 'authorization') ?? '')?.[1] ?? ''
  return timingSafeEqual(createHash('sha256').update(given).digest(), createHash('sha256').update(token.reveal()).digest())
}
