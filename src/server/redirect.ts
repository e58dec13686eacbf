import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Clock } from '../exchange/clock.ts'
import type { BrowserReply, OpenRedirect } from '../tokens/login.ts'
import { SignInError } from '../tokens/sign-in.ts'
import { closed } from './listeners.ts'
import { createServer } from './node-http.ts'

const LARGEST_FORM_BYTES = 64 * 1024
const HEADER_BYTES = 16 * 1024
// Real milliseconds: browsers open connections ahead of need and leave them open.
const LAST_REPLY_MS = 500

// http://HOST[:PORT]/PATH, as `checkCredential` has seen it to be
const URI = /^http:\/\/(\[[^\]]+\]|[^:/]+)(?::(\d{1,5}))?(\/.*)$/

/**
 * Where a person's browser comes back to after a sign-in: one path on one loopback address (RFC 8252 §7.3), for a query
 * (GET) or a form from the provider's page (POST, OAuth 2.0 Form Post Response Mode). Without a port any free one.
 *
 * The answer is a page without scripts, links or anything of what came in, that nobody stores.
 */
export function redirectListener(clock: Clock): OpenRedirect {
  return async function openRedirect(uri, wantedPort, receive) {
    const [, host = '', port, path = '/'] = URI.exec(uri) ?? []
    const server = createServer({ maxHeaderSize: HEADER_BYTES, requestTimeout: 10_000 }, (request, response) => {
      void answer(request).then((reply) => write(response, reply))
    })
    server.maxConnections = 50
    await listening(server, host.replace(/^\[|\]$/g, ''), wantedPort ?? Number(port ?? 0))
    const authority = `${host}:${(server.address() as AddressInfo).port}`
    const own = new URL(`http://${authority}${path}`)

    async function answer(request: IncomingMessage): Promise<BrowserReply> {
      // a page of another name that resolves to us is not the one we have sent the browser to (DNS rebinding)
      if (request.headers.host !== authority) return { status: 421, text: 'Nothing of that name is here.' }
      const url = URL.parse(`http://${authority}${request.url ?? '/'}`)
      if (url?.pathname !== own.pathname) return { status: 404, text: 'Nothing is here.' }
      if (request.method === 'GET') return receive(url.searchParams)
      if (request.method !== 'POST') return { status: 405, text: 'This is for GET and POST.' }
      const form = await formIn(request)
      return form === undefined ? { status: 413, text: 'This is too much for a form.' } : receive(form)
    }

    return {
      uri: `http://${authority}${path}`,
      async close() {
        const timer = clock.after(LAST_REPLY_MS / clock.realMs(1), () => server.closeAllConnections())
        const gone = closed(server)
        server.closeIdleConnections()
        await gone
        timer.cancel()
      }
    }
  }
}

function listening(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const why = cause.code === 'EADDRINUSE' ? 'something else listens there' : cause.code === 'EACCES' ? 'ports below 1024 need a privilege' : 'not possible'
      reject(new SignInError(`cannot wait for the browser at ${host}:${port}, ${why}: choose another port with --port or in redirectUri`, { cause }))
    })
    server.listen(port, host, resolve)
  })
}

async function formIn(request: IncomingMessage): Promise<URLSearchParams | undefined> {
  const chunks: Buffer[] = []
  let sizeBytes = 0
  try {
    for await (const chunk of request) {
      const bytes: Buffer = chunk
      sizeBytes += bytes.length
      if (sizeBytes > LARGEST_FORM_BYTES) return undefined
      chunks.push(bytes)
    }
  } catch {
    // the browser broke off: what came is no response, and nobody waits for an answer
    return new URLSearchParams()
  }
  return new URLSearchParams(Buffer.concat(chunks).toString())
}

function write(response: ServerResponse, { status, text }: BrowserReply): void {
  const page = `<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Attache</title>\n<p>${text}</p>\n</html>\n`
  response
    .writeHead(status, {
      'Content-Type': 'text/html; charset=utf-8',
      'Cache-Control': 'no-store',
      'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
      'Referrer-Policy': 'no-referrer',
      'X-Content-Type-Options': 'nosniff',
      Connection: 'close'
    })
    .end(page)
}
