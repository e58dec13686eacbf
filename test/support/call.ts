import { request as httpRequest, type IncomingHttpHeaders } from 'node:http'

export type CallOptions = {
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  /** Pieces go out one by one, without a length announced. */
  readonly body?: string | Buffer | readonly Buffer[]
}

export type Outcome = {
  /** 0 where the connection broke before there was a status. */
  readonly status: number
  /** Of a local problem. */
  readonly code: string | undefined
  readonly headers: IncomingHttpHeaders
  readonly body: string
  readonly isWhole: boolean
  readonly attempts: number
  /** Seconds; 0 where there is none. */
  readonly retryAfter: number
  readonly ms: number
}

/** One call of an app on a connection of its own, so that nothing lingers; never rejects. */
export function call(url: string, options: CallOptions = {}): Promise<Outcome> {
  return new Promise((resolve) => {
    const startedAt = performance.now()
    const chunks: Buffer[] = []
    function done(status: number, headers: IncomingHttpHeaders, isWhole: boolean): void {
      const body = Buffer.concat(chunks).toString()
      resolve({
        status,
        headers,
        body,
        isWhole,
        code: /urn:attache:problem:([a-z-]+)/.exec(body)?.[1],
        attempts: Number(headers['attache-attempts']),
        retryAfter: Number(headers['retry-after'] ?? 0),
        ms: performance.now() - startedAt
      })
    }
    const request = httpRequest(url, { method: options.method ?? 'GET', headers: options.headers ?? {}, agent: false }, (response) => {
      const { statusCode = 0, headers } = response
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('end', () => done(statusCode, headers, true))
      response.on('error', () => done(statusCode, headers, false))
    })
    request.on('error', () => done(0, {}, false))
    if (typeof options.body === 'string' || Buffer.isBuffer(options.body)) request.end(options.body)
    else {
      for (const piece of options.body ?? []) request.write(piece)
      request.end()
    }
  })
}
