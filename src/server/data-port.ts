import { METHODS, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import httpProxy from '@fastify/http-proxy'
import fastify, { type FastifyInstance, type FastifyRequest } from 'fastify'
import { CallerGone, Problem } from '../exchange/problem.ts'
import { field } from '../http/fields.ts'
import type { Authorization } from '../tokens/source.ts'
import { callerOf, type Caller } from './checks.ts'
import { answerPreflight, refuseRequest, serve, turnAway, type Door, type DownstreamTools } from './downstream.ts'
import { refuse, type Handler } from './http-server.ts'

export type DataPortOptions = {
  /** The upstreams reachable on this port, each under its prefix. */
  readonly doors: readonly Door[]
  /** Throws the problem that refuses a caller. */
  readonly check: (caller: Caller) => void
  /** The authorization for a websocket about to be opened; undefined for `credential: none`. */
  readonly authorizeUpgrade: (door: Door, target: string, signal: AbortSignal) => Promise<Authorization | undefined>
  /** Answers `/_attache/…`, undefined where nothing is known there. */
  readonly own: (message: IncomingMessage, response: ServerResponse) => void
}

/** Answers requests and upgrades of one listener. */
export type DataPort = Handler & { close(): Promise<void> }

// CONNECT never gets here, TRACE would echo the credential
const PROXIED_METHODS = METHODS.filter((method) => method !== 'CONNECT' && method !== 'TRACE')

/**
 * The app's side: Fastify routes by prefix, `@fastify/http-proxy` mounts each upstream through its `handler` option (path
 * checks and websockets are its own), everything else is ours.
 *
 * Tamed: Fastify sees requests without header fields, so that it neither parses bodies nor judges content types; it never
 * writes an answer on the data path; it does not log.
 */
export async function dataPort(options: DataPortOptions, tools: DownstreamTools): Promise<DataPort> {
  const upgrades = new WeakMap<IncomingMessage, Authorization>()
  const app: FastifyInstance = fastify({
    logger: false,
    requestIdHeader: false,
    exposeHeadRoutes: false,
    return503OnClosing: false,
    forceCloseConnections: false,
    bodyLimit: Number.MAX_SAFE_INTEGER,
    routerOptions: { caseSensitive: true, ignoreTrailingSlash: false, ignoreDuplicateSlashes: false, maxParamLength: 16_384 },
    frameworkErrors(_error, request, reply) {
      reply.hijack()
      refuseRequest(request.raw, reply.raw, new Problem('bad-request', { detail: 'the path contains an incomplete percent-encoding' }), tools)
    }
  })
  for (const method of PROXIED_METHODS) if (!app.supportedMethods.includes(method)) app.addHttpMethod(method)

  for (const door of options.doors) {
    const wsClientOptions = {
      followRedirects: false,
      perMessageDeflate: false,
      // the app's own fields do not cross; http-proxy asks for these at once, so the authorization is fetched before
      rewriteRequestHeaders: (_headers: unknown, request: FastifyRequest) => upgradeFields(door, upgrades.get(request.raw))
    }
    await app.register(httpProxy, {
      prefix: door.prefix,
      upstream: door.base.href,
      // without it an upstream mounted at the root of its host could not tell `/x` from `//x`
      rewritePrefix: door.base.pathname,
      httpMethods: PROXIED_METHODS,
      proxyPayloads: false,
      websocket: true,
      wsClientOptions,
      preHandler(request, reply, done) {
        if (request.raw.headers.upgrade === undefined) return done()
        const leaving = new AbortController()
        request.raw.socket.once('close', () => leaving.abort(new CallerGone()))
        const target = (request.raw.url ?? '/').slice(door.prefix.length)
        options.authorizeUpgrade(door, target, leaving.signal).then(
          (authorization) => {
            if (authorization !== undefined) upgrades.set(request.raw, authorization)
            done()
          },
          (error: unknown) => {
            reply.hijack()
            refuse(request.raw.socket, error instanceof Problem ? error : new Problem('internal', { cause: error }))
          }
        )
        return undefined
      },
      handler(request, reply) {
        reply.hijack()
        // the router matched the decoded path: a prefix spelled in another way is another path
        if (!(request.raw.url ?? '').startsWith(door.prefix)) return refuseRequest(request.raw, reply.raw, unknownUpstream(options.doors), tools)
        void serve(request.raw, reply.raw, door, tools)
        return undefined
      }
    })
  }
  app.all('/_attache/*', (request, reply) => {
    reply.hijack()
    options.own(request.raw, reply.raw)
  })
  app.setNotFoundHandler((request, reply) => {
    reply.hijack()
    refuseRequest(request.raw, reply.raw, unknownUpstream(options.doors), tools)
  })
  app.setErrorHandler((_error, request, reply) => {
    reply.hijack()
    refuseRequest(request.raw, reply.raw, new Problem('bad-request', { detail: 'the path leaves the upstream' }), tools)
  })
  await app.ready()

  return {
    request(message, response) {
      try {
        options.check(callerOf(message))
      } catch (problem) {
        return turnAway(message, response, asProblem(problem), tools)
      }
      if (isPreflight(message)) return answerPreflight(message, response)
      message.headers = {}
      return app.routing(message, response)
    },
    upgrade(message: IncomingMessage, socket: Duplex, head: Buffer) {
      try {
        options.check(callerOf(message))
      } catch (problem) {
        return refuse(socket, asProblem(problem))
      }
      app.server.emit('upgrade', message, socket, head)
      return undefined
    },
    close: () => app.close()
  }
}

function isPreflight(message: IncomingMessage): boolean {
  return message.method === 'OPTIONS' && field(message.rawHeaders, 'access-control-request-method') !== undefined
}

function upgradeFields(door: Door, authorization: Authorization | undefined): Record<string, string> {
  const fields = [...door.injected, ...(authorization?.fields ?? [])]
  const record: Record<string, string> = {}
  for (let i = 0; i < fields.length; i += 2) record[fields[i] as string] = fields[i + 1] as string
  return record
}

function unknownUpstream(doors: readonly Door[]): Problem {
  return new Problem('unknown-upstream', {
    detail: 'the first segment of the path names no upstream of the configuration',
    extra: { upstreams: doors.map((door) => door.upstream).slice(0, 20) }
  })
}

function asProblem(error: unknown): Problem {
  return error instanceof Problem ? error : new Problem('internal', { cause: error })
}
