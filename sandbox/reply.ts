import type { ServerResponse } from 'node:http'
import { field, type Answer, type Provider } from './call.ts'
import type { SandboxClock } from './clock.ts'
import type { Fault } from './faults.ts'

/** Writes an answer; resolves when it has left or the caller is gone. */
export function write(response: ServerResponse, answer: Answer): Promise<void> {
  head(response, answer)
  if (answer.chunked === true && answer.body !== undefined) {
    const body = Buffer.from(answer.body)
    response.write(body.subarray(0, body.length >> 1))
    response.end(body.subarray(body.length >> 1))
  } else response.end(answer.body)
  return over(response)
}

/** One byte every `delayMs` of provider time. */
export function drip(response: ServerResponse, answer: Answer, fault: Fault, clock: SandboxClock): Promise<void> {
  const body = Buffer.from(answer.body ?? '')
  head(response, answer)
  response.flushHeaders()
  let sent = 0
  function next(): void {
    if (response.destroyed) return
    if (sent >= body.length) return void response.end()
    response.write(body.subarray(sent, ++sent))
    clock.after(fault.delayMs, next)
  }
  next()
  return over(response)
}

/** Announces the whole body, sends half of it and drops the connection. */
export function truncate(response: ServerResponse, answer: Answer): Promise<void> {
  const body = Buffer.from(answer.body ?? '{"half":"of it"}')
  head(response, { ...answer, body })
  response.write(body.subarray(0, body.length >> 1), () => response.socket?.destroy())
  return over(response)
}

/** Ends the connection with a TCP reset. */
export function reset(response: ServerResponse): Promise<void> {
  response.socket?.resetAndDestroy()
  return over(response)
}

/** Bytes that are not HTTP. */
export function garbage(response: ServerResponse): Promise<void> {
  const { socket } = response
  socket?.end('HTTQ/7.3 OK, I guess\r\n\u0000\r\n')
  return over(response)
}

/** Resolves when the exchange is over. */
export function over(response: ServerResponse): Promise<void> {
  if (response.destroyed || response.writableFinished) return Promise.resolve()
  return new Promise((resolve) => response.once('close', () => resolve()))
}

function head(response: ServerResponse, answer: Answer): void {
  const hasLength = answer.body !== undefined && answer.chunked !== true
  const noBody = answer.status === 204 || answer.status === 304
  const length = hasLength
    ? [['Content-Length', String(Buffer.byteLength(answer.body ?? ''))]]
    : answer.body === undefined && !noBody
      ? [['Content-Length', '0']]
      : []
  response.writeHead(answer.status, [...answer.fields, ...length].flat())
}

/** The answer a `status` fault gives: the provider's own looks, unless the fault brings a body. */
export function faultAnswer(provider: Provider, fault: Fault): Answer {
  const looks =
    fault.body === undefined
      ? provider.failure(fault.status)
      : { status: fault.status, fields: [['Content-Type', 'application/json']] as const, body: fault.body }
  const named = new Set(fault.fields.map(([name]) => name.toLowerCase()))
  const wait = fault.retryAfter === undefined ? [] : [['Retry-After', fault.retryAfter] as const]
  return { ...looks, fields: [...looks.fields.filter(([name]) => !named.has(name.toLowerCase())), ...fault.fields, ...wait] }
}

/** Adds `Date`, and turns `Retry-After: date:SECONDS` into a date that much later. */
export function withDate(answer: Answer, clock: SandboxClock): Answer {
  const now = clock.wallNow()
  const fields = answer.fields.map(([name, value]) => {
    const later = name.toLowerCase() === 'retry-after' ? /^date:(\d+)$/.exec(value)?.[1] : undefined
    return [name, later === undefined ? value : new Date(now + Number(later) * 1000).toUTCString()] as const
  })
  return { ...answer, fields: field(fields, 'date') === undefined ? [['Date', new Date(now).toUTCString()], ...fields] : fields }
}
