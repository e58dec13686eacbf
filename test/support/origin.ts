import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export type Received = { method: string; url: string; fields: string[]; headers: IncomingMessage['headers']; body: Buffer; at: number }

export type Origin = {
  readonly url: string
  /** Everything received so far, bodies whole. */
  readonly received: Received[]
  close(): Promise<void>
}

/** A real loopback server that records what arrives and answers with `answer` (200 `ok` by default). */
export async function origin(
  answer: (received: Received, response: ServerResponse, message: IncomingMessage) => void = (_received, response) => void response.end('ok')
): Promise<Origin> {
  const received: Received[] = []
  const server = createServer({ maxHeaderSize: 128 * 1024 }, (message, response) => {
    const chunks: Buffer[] = []
    message.on('data', (chunk: Buffer) => chunks.push(chunk))
    message.on('end', () => {
      const one = {
        method: message.method ?? '',
        url: message.url ?? '',
        fields: message.rawHeaders,
        headers: message.headers,
        body: Buffer.concat(chunks),
        at: performance.now()
      }
      received.push(one)
      answer(one, response, message)
    })
  })
  server.keepAliveTimeout = 0
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    received,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      })
  }
}
