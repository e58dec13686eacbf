/** What a Node user would pick: `@fastify/http-proxy` with its defaults. `--cache` adds undici's cache interceptor. */
import httpProxy from '@fastify/http-proxy'
import fastify from 'fastify'
import { Agent, interceptors } from 'undici'
import { origin, port } from './arguments.ts'

const app = fastify({ logger: false })
// the plugin's types know only the undici it brings itself
const options: { upstream: string; [option: string]: unknown } = { upstream: origin.origin }
if (process.argv.includes('--cache')) options['undici'] = new Agent({ connections: 128, pipelining: 1 }).compose(interceptors.cache())
await app.register(httpProxy, options)
await app.listen({ port, host: '127.0.0.1' })
