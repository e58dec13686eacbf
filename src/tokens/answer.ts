import { createHash } from 'node:crypto'
import { field } from '../http/fields.ts'
import { retryAfterMs } from '../http/retry-after.ts'
import { printable, TokenFailure } from './failure.ts'
import type { FetchAnswer } from './fetch.ts'

/** What a token service issued. Lifetimes count from the moment before the request was sent. */
export type TokenAnswer = {
  readonly accessToken: string
  readonly scheme: 'Bearer' | 'DPoP'
  readonly lifetimeMs: number
  readonly refreshToken: string | undefined
  /** Undefined where the service names none, or none that ends. */
  readonly refreshLifetimeMs: number | undefined
}

export type Expectation = {
  readonly scheme: 'Bearer' | 'DPoP'
  readonly defaultLifetimeMs: number
  /** To be kept out of the log. */
  readonly secrets: readonly string[]
  readonly wallNowMs: number
}

const LONGEST_TOKEN = 16 * 1024
const SHORTEST_LIFETIME_MS = 1000
// What nobody means: a service that says a year or more does not know.
const LONGEST_LIFETIME_MS = 365 * 86_400_000
const LIFETIME_FOR_LONGER_MS = 86_400_000

/**
 * Reads the answer to a token request (RFC 6749 §5), trusting nothing: only a whole, printable token of the expected
 * type passes. Of doubled members the last counts, unknown ones are ignored, and a missing or senseless lifetime is
 * replaced by a finite one, so that it never means a token request per call. Throws `TokenFailure`.
 */
export function readTokenAnswer(answer: FetchAnswer, expected: Expectation): TokenAnswer {
  const body = readJson(answer.text)
  const error = body?.['error']
  if (answer.status !== 200 || typeof error === 'string') throw refusal(answer, body, expected)
  if (body === undefined) throw unusable(answer, `it answered with ${describe(answer)} instead of a token`)

  const accessToken = body['access_token']
  if (typeof accessToken !== 'string' || accessToken === '') throw unusable(answer, 'its answer has no access_token')
  if (!isToken(accessToken)) throw unusable(answer, 'its access_token is longer than 16 KiB or has characters no token has')
  if (schemeOf(body['token_type']) !== expected.scheme) {
    // Sending a bound token as a bearer token, or any token in a way we do not know, gives away more than was agreed (RFC 6749 §7.1, RFC 9449 §5).
    throw unusable(answer, `its token_type is not ${expected.scheme}`)
  }
  const refreshToken = body['refresh_token']
  return {
    accessToken,
    scheme: expected.scheme,
    lifetimeMs: lifetimeMs(body['expires_in'], expected.defaultLifetimeMs),
    refreshToken: typeof refreshToken === 'string' && refreshToken !== '' && isToken(refreshToken) ? refreshToken : undefined,
    refreshLifetimeMs: refreshLifetimeMs(body['refresh_expires_in'])
  }
}

/** Seconds as a number or as digits; everything else, and what is not positive, is no lifetime (`0`, `-1`, `"3600abc"`, `1e309`). */
export function lifetimeMs(expiresIn: unknown, defaultMs: number): number {
  const ms = (seconds(expiresIn) ?? 0) * 1000
  if (ms <= 0) return defaultMs
  return ms > LONGEST_LIFETIME_MS ? LIFETIME_FOR_LONGER_MS : Math.max(ms, SHORTEST_LIFETIME_MS)
}

// Keycloak says 0 for offline tokens, which do not end.
function refreshLifetimeMs(expiresIn: unknown): number | undefined {
  const ms = (seconds(expiresIn) ?? 0) * 1000
  return ms > 0 && ms <= LONGEST_LIFETIME_MS ? ms : undefined
}

function seconds(value: unknown): number | undefined {
  const number = typeof value === 'string' && /^\d{1,15}(?:\.\d{1,6})?$/.test(value) ? Number(value) : value
  return typeof number === 'number' && Number.isFinite(number) ? number : undefined
}

function schemeOf(tokenType: unknown): 'Bearer' | 'DPoP' | undefined {
  if (typeof tokenType !== 'string') return undefined
  const lower = tokenType.toLowerCase()
  return lower === 'bearer' ? 'Bearer' : lower === 'dpop' ? 'DPoP' : undefined
}

// A token becomes a header value: a line end in it would become a header of its own.
function isToken(text: string): boolean {
  return text.length <= LONGEST_TOKEN && /^[\x21-\x7e]+$/.test(text)
}

function refusal(answer: FetchAnswer, body: Readonly<Record<string, unknown>> | undefined, expected: Expectation): TokenFailure {
  const error = errorCode(body?.['error'])
  const description = body?.['error_description']
  const words = [error, typeof description === 'string' ? description : undefined].filter((part) => part !== undefined).join(': ')
  const redirected = answer.status >= 300 && answer.status < 400
  return new TokenFailure('refused', redirected ? 'it redirects, which is never followed: correct tokenUrl' : `it answered ${error ?? answer.status}`, {
    ...(error === undefined ? {} : { error }),
    status: answer.status,
    retryAfterMs: retryAfterMs(answer.fields, expected.wallNowMs),
    detail: printable(words === '' ? describe(answer) : `${answer.status} ${words}`, expected.secrets)
  })
}

function unusable(answer: FetchAnswer, message: string): TokenFailure {
  return new TokenFailure('unusable', message, { status: answer.status, detail: describe(answer) })
}

/** A page nobody asked for, without a word of it. */
function describe(answer: FetchAnswer): string {
  const type = printable((field(answer.fields, 'content-type') ?? 'untyped content').split(';')[0] ?? '', []).slice(0, 60)
  const digest = createHash('sha256').update(answer.text).digest('hex').slice(0, 8)
  return `${answer.status} ${type}, ${answer.text.length} characters, sha256 ${digest}`
}

function errorCode(error: unknown): string | undefined {
  return typeof error === 'string' && /^[A-Za-z0-9_.-]{1,60}$/.test(error) ? error : undefined
}

function readJson(text: string): Readonly<Record<string, unknown>> | undefined {
  let value: unknown
  try {
    value = JSON.parse(text.replace(/^\uFEFF/, ''))
  } catch {
    // Not JSON is one of the answers to expect; the caller says so in its own words.
    return undefined
  }
  return isObject(value) ? value : undefined
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
