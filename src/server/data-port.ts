import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import httpProxy from '@fastify/http-proxy'
import fastify, { type FastifyInstance } from 'fastify'
import { Problem } from '../exchange/problem.ts'
import { field } from '../http/fields.ts'
import { isPlainTarget } from '../http/target.ts'
import { callerOf, type Caller } from './checks.ts'
import type { Door, DownstreamTools } from './door.ts'
import { answerPreflight, refuseRequest, serve, serveUpgrade, turnAway } from './downstream.ts'
import type { Handler } from './http-server.ts'
import { METHODS, ServerResponse as NodeResponse } from './node-http.ts'
import { SCHEMALESS } from './schemaless.ts'

export type DataPortOptions = {
  /** The upstreams reachable on this port, each under its prefix. */
  readonly doors: readonly Door[]
  /** Throws the problem that refuses a caller. */
  readonly check: (caller: Caller) => void
  /** Answers `/_attache/…`, undefined where nothing is known there. */
  readonly own: (message: IncomingMessage, response: ServerResponse) => void
}

/** Answers requests and upgrades of one listener. */
export type DataPort = Handler & { close(): Promise<void> }

// CONNECT never gets here, TRACE would echo the credential
const PROXIED_METHODS = METHODS.filter((method) => method !== 'CONNECT' && method !== 'TRACE')

const OWN_PREFIX = '/_attache'

/**
 * The app's side: Fastify routes by prefix, `@fastify/http-proxy` mounts each upstream through its `handler` option (path
 * checks are its own), everything else is ours. Plain targets, which nobody could read in two ways, do not ask them: their
 * verdict is known, and finding it out costs more than every policy together.
 *
 * Tamed: Fastify sees requests without header fields, so that it neither parses bodies nor judges content types; it never
 * writes an answer on the data path; it does not log.
 */
export async function dataPort(options: DataPortOptions, tools: DownstreamTools): Promise<DataPort> {
  const upgraded = new Set<Duplex>()
  const app: FastifyInstance = fastify({
    logger: false,
    requestIdHeader: false,
    exposeHeadRoutes: false,
    return503OnClosing: false,
    forceCloseConnections: false,
    bodyLimit: Number.MAX_SAFE_INTEGER,
    schemaController: SCHEMALESS,
    routerOptions: { caseSensitive: true, ignoreTrailingSlash: false, ignoreDuplicateSlashes: false, maxParamLength: 16_384 },
    frameworkErrors(_error, request, reply) {
      reply.hijack()
      refuseRequest(request.raw, reply.raw, new Problem('bad-request', { detail: 'the path contains an incomplete percent-encoding' }), tools)
    }
  })
  // bodies are not Fastify's, nor what a method asks of one: QUERY would be refused without a Content-Type it cannot see
  for (const method of PROXIED_METHODS) app.addHttpMethod(method, { overrideExisting: true })

  for (const door of options.doors) {
    await app.register(httpProxy, {
      prefix: door.prefix,
      upstream: door.base.href,
      // without it an upstream mounted at the root of its host could not tell `/x` from `//x`
      rewritePrefix: door.base.pathname,
      httpMethods: PROXIED_METHODS,
      proxyPayloads: false,
      handler(request, reply) {
        reply.hijack()
        // the router matched the decoded path: a prefix spelled in another way is another path
        if (!(request.raw.url ?? '').startsWith(door.prefix)) return refuseRequest(request.raw, reply.raw, unknownUpstream(options.doors), tools)
        void serve(request.raw, reply.raw, door, tools)
        return undefined
      }
    })
  }
  app.all(`${OWN_PREFIX}/*`, (request, reply) => {
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
  const doors = new Map(options.doors.map((door) => [door.prefix, door]))

  return {
    request(message, response) {
      try {
        options.check(callerOf(message))
      } catch (problem) {
        return turnAway(message, response, asProblem(problem), tools)
      }
      if (isPreflight(message)) return answerPreflight(message, response)
      const door = plainDoor(message.url ?? '/')
      if (door !== undefined) return void serve(message, response, door, tools)
      message.headers = {}
      return app.routing(message, response)
    },
    upgrade(message: IncomingMessage, socket: Duplex, head: Buffer) {
      upgraded.add(socket)
      socket.once('close', () => upgraded.delete(socket))
      const response = new NodeResponse(message)
      response.assignSocket(message.socket)
      response.shouldKeepAlive = false
      response.once('finish', () => message.socket.destroySoon())
      try {
        options.check(callerOf(message))
        if (tools.isDraining()) throw new Problem('draining')
      } catch (problem) {
        return turnAway(message, response, asProblem(problem), tools)
      }
      const door = doorTo(message.url ?? '/')
      if (door === undefined) return refuseRequest(message, response, unknownUpstream(options.doors), tools)
      return void serveUpgrade(message, response, head, door, tools)
    },
    async close() {
      for (const socket of upgraded) socket.destroy()
      await app.close()
    }
  }

  /** The door a plain target leads to; all others, unknown and dubious ones, are for Fastify and http-proxy to judge. */
  function plainDoor(target: string): Door | undefined {
    if (!isPlainTarget(target)) return undefined
    const end = target.indexOf('/', 1)
    const first = end === -1 ? target : target.slice(0, end)
    if (first === OWN_PREFIX) return undefined
    return doors.get('') ?? (end === -1 ? undefined : doors.get(first))
  }

  function doorTo(target: string): Door | undefined {
    return options.doors.find(({ prefix }) => target.startsWith(prefix) && /^(?:[/?]|$)/.test(target.slice(prefix.length)))
  }
}

function isPreflight(message: IncomingMessage): boolean {
  return message.method === 'OPTIONS' && field(message.rawHeaders, 'access-control-request-method') !== undefined
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
