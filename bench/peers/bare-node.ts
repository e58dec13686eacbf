/** The limit of Node: `node:http` before undici's dispatch, small bodies as bytes, no policies, no header hygiene. */
import { createServer } from 'node:http'
import type { ServerResponse } from 'node:http'
import { Pool, type Dispatcher } from 'undici'
import { origin, port } from './arguments.ts'

const HOP_BY_HOP = new Set(['connection', 'keep-alive', 'transfer-encoding'])
const SMALL_BYTES = 64 * 1024

const pool = new Pool(origin.origin, { connections: 128, pipelining: 1, headersTimeout: 0, bodyTimeout: 0 })

class Answer implements Dispatcher.DispatchHandler {
  readonly #response: ServerResponse
  #chunks: Buffer[] | undefined

  constructor(response: ServerResponse) {
    this.#response = response
  }

  onRequestStart(): void {}

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: Record<string, string | string[] | undefined>): void {
    const fields: string[] = []
    for (const [name, value] of Object.entries(headers)) {
      if (value !== undefined && !HOP_BY_HOP.has(name)) for (const one of Array.isArray(value) ? value : [value]) fields.push(name, one)
    }
    this.#response.writeHead(status, fields)
    if (Number(headers['content-length'] ?? Infinity) <= SMALL_BYTES) this.#chunks = []
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#chunks !== undefined) {
      this.#chunks.push(chunk)
    } else if (!this.#response.write(chunk)) {
      controller.pause()
      this.#response.once('drain', () => controller.resume())
    }
  }

  onResponseEnd(): void {
    this.#response.end(this.#chunks === undefined ? undefined : this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks))
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    console.error(error)
    this.#response.destroy()
  }
}

createServer((request, response) => {
  pool.dispatch({ path: request.url ?? '/', method: 'GET', headers: [] }, new Answer(response))
}).listen(port, '127.0.0.1')
