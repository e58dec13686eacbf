import { Client, errors, type Dispatcher } from 'undici'
import { FetchFailure, type FetchAnswer, type FetchOptions, type TokenFetch } from '../tokens/fetch.ts'

const MAX_HEADER_BYTES = 16 * 1024
const MAX_ANSWER_BYTES = 64 * 1024

/**
 * Sends token requests, each on a connection of its own: they are rare, and an idle connection that has died unnoticed
 * would leave it open whether a one-time token was used up.
 *
 * TLS is always verified, redirects are not followed, answers over 64 KiB are refused. `connectMs` is real time; how
 * long the whole may take is decided by the signal.
 */
export function tokenFetch(connectMs = 5_000): TokenFetch {
  return async function tokenFetch(url, options) {
    const { origin, pathname, search } = new URL(url)
    const client = new Client(origin, {
      connect: tlsOptions(options, connectMs),
      allowH2: false,
      maxHeaderSize: MAX_HEADER_BYTES,
      maxResponseSize: MAX_ANSWER_BYTES,
      headersTimeout: 0,
      bodyTimeout: 0
    })
    let connected = false
    client.once('connect', () => {
      connected = true
    })
    try {
      const answer = await client.request({
        method: options.method,
        path: pathname + search,
        headers: options.headers,
        ...(options.body === undefined ? {} : { body: options.body }),
        reset: true,
        signal: options.signal
      })
      return await wholeAnswer(answer)
    } catch (error) {
      throw new FetchFailure(failureText(error, options.signal, connected), connected, error)
    } finally {
      // Resolves once the socket is gone; nobody waits for that.
      void client.destroy()
    }
  }
}

function tlsOptions(options: FetchOptions, connectMs: number): NonNullable<Client.Options['connect']> {
  return {
    timeout: connectMs,
    rejectUnauthorized: true,
    minVersion: 'TLSv1.2',
    ...(options.ca === undefined ? {} : { ca: options.ca }),
    ...options.certificate
  }
}

async function wholeAnswer(answer: Dispatcher.ResponseData): Promise<FetchAnswer> {
  const fields = Object.entries(answer.headers).flatMap(([name, value]) => [value ?? []].flat().flatMap((one) => [name, one]))
  return { status: answer.statusCode, fields, text: await answer.body.text() }
}

/** In our words: the library's text names addresses. */
function failureText(error: unknown, signal: AbortSignal, connected: boolean): string {
  if (signal.aborted) return 'it did not answer in time'
  if (error instanceof errors.ConnectTimeoutError) return 'it did not accept the connection in time'
  if (error instanceof errors.ResponseExceededMaxSizeError) return 'its answer is larger than 64 KiB'
  if (error instanceof errors.HeadersOverflowError) return 'the header of its answer is larger than 16 KiB'
  const code = codeOf(error)
  if (code === 'ECONNREFUSED') return 'it refused the connection'
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return 'its name does not resolve'
  if (/CERT|ERR_TLS|ERR_SSL|SELF_SIGNED|UNABLE_TO_VERIFY|EPROTO/.test(code)) return 'its TLS certificate was not accepted, or ours was not'
  if (error instanceof errors.HTTPParserError) return 'its answer is not well-formed HTTP'
  return connected ? 'it closed the connection' : 'it cannot be reached'
}

function codeOf(error: unknown): string {
  if (!(error instanceof Error)) return ''
  if (error instanceof AggregateError) return codeOf(error.errors[0])
  return 'code' in error && typeof error.code === 'string' ? error.code : ''
}
