import type { SandboxClock } from './clock.ts'
import type { Severity } from './ledger.ts'
import type { Token } from './tokens.ts'

/** Field names and values in wire order, duplicates kept. */
export type Fields = readonly (readonly [name: string, value: string])[]

/** One call to a provider's API, as it arrived. */
export type Call = {
  readonly id: number
  /** Provider milliseconds when its header had been read. */
  readonly at: number
  /** Which TCP connection brought it. */
  readonly connection: number
  readonly httpVersion: string
  readonly method: string
  /** Path and query behind `/PROVIDER/api`, byte for byte. */
  readonly target: string
  readonly path: string
  readonly fields: Fields
  readonly body: Buffer
  /** `METHOD /template`, undefined for an operation the provider does not have. */
  readonly operation: Operation | undefined
  readonly params: Readonly<Record<string, string>>
  /** Scheme and authority the caller used, e.g. `http://127.0.0.1:7700`. */
  readonly origin: string
  /** The client the bearer token was issued to, `unknown` where there is none. */
  readonly client: string
  readonly token: Token | undefined
}

export type Answer = {
  readonly status: number
  readonly fields: Fields
  readonly body?: string | Buffer
  /** Sent in chunks without a length, as some gateways do. */
  readonly chunked?: boolean
}

/** An operation of a provider's API. */
export type Operation = {
  readonly method: string
  readonly template: string
  /** Safe to repeat although its method is not (declared by the provider). */
  readonly repeatable?: boolean
  /** Its answers may be stored, so identical calls at once are a waste. */
  readonly cacheable?: boolean
  handle(call: Call): Answer
}

/** One token request, as the rules see it; `subject` is everything that makes tokens different (scope, user, …). */
export type TokenAsk = { readonly at: number; readonly client: string; readonly subject: string; readonly grant: string }

/** `final`: the credential is no good. `stale`: a refresh token is not, another grant may be. `later`: the service failed. */
export type RefusalKind = 'final' | 'stale' | 'later'

/**
 * A clause as a witness: it is told what happens and notes what should not have. `answered` comes just before the first
 * byte of an answer is written, so that a gap measured from there is never shortened by the network.
 */
export type Rule = {
  arrived?(call: Call): void
  /** `processed` tells whether the operation was carried out (a 503 of the gateway was not). */
  answered?(call: Call, answer: Answer, processed: boolean): void
  /** It ended without a whole answer (`answered` may have come before): a fault, or the caller closed it. */
  dropped?(call: Call, ending: { processed: boolean; byCaller: boolean }): void
  /** It is over, one way or the other. */
  ended?(call: Call): void
  /** A token request has arrived, and is over one way or the other; `id` is its own. */
  tokenOpened?(id: number, client: string): void
  tokenEnded?(id: number): void
  tokenAsked?(ask: TokenAsk): void
  tokenIssued?(ask: TokenAsk, token: Token): void
  tokenRefused?(ask: TokenAsk, refusal: { kind: RefusalKind; retryAfterMs: number | undefined }): void
  /** A connection lay idle for this long; real milliseconds. */
  idle?(client: string, realMs: number): void
  /** Notes what only the passing of time proves; called before the ledger is read. */
  settle?(): void
  /** Forgets calls seen so far (tokens stay valid). */
  forget?(): void
}

/** What a rule is handed: time, its tolerance, and the page of the ledger that belongs to its provider. */
export type Bench = {
  readonly clock: SandboxClock
  /** Provider milliseconds a message may have been under way: what is younger may have been sent before our answer was read. */
  readonly slackMs: number
  /** Provider milliseconds by which a timer may fire early. */
  readonly hairMs: number
  note(rule: string, severity: Severity, client: string, detail: string): void
}

/** An API request before anybody knows whose it is. */
export type ApiRequest = Pick<Call, 'at' | 'method' | 'target' | 'path' | 'fields'>

export type Caller = { readonly client: string; readonly token: Token | undefined; readonly refusal: Answer | undefined }

/** A provider that can be opened: its path prefix, and what to make once it has its page of the ledger. */
export type ProviderPlan = { readonly name: string; open(bench: Bench): Provider }

/** What a provider of the sandbox is made of. */
export type Provider = {
  readonly operations: readonly Operation[]
  readonly rules: readonly Rule[]
  /** Finds out who calls; a refusal is answered instead of the operation. */
  authenticate(request: ApiRequest): Caller
  /** The token endpoint at `/PROVIDER/token`; `instead` is a fault's answer to give after all the checks. */
  token(request: TokenRequest, instead?: Answer): TokenReply
  /** Any other path below `/PROVIDER`, e.g. discovery. */
  extra?(path: string, request: TokenRequest): Answer | undefined
  /** What this provider's failures look like. */
  failure(status: number): Answer
  /** Declares every live token void, as after a key change. */
  revokeTokens(): void
}

export type TokenReply = { readonly answer: Answer; readonly token: Token | undefined }

/** A request to the token endpoint (or another path outside the API). */
export type TokenRequest = {
  readonly at: number
  readonly method: string
  readonly url: URL
  readonly fields: Fields
  readonly body: Buffer
  readonly origin: string
}

/** The values of a field, each line apart. */
export function fieldLines(fields: Fields, name: string): string[] {
  return fields.filter(([known]) => known.toLowerCase() === name).map(([, value]) => value)
}

/** A field's value, lines joined by comma; undefined where it is absent. */
export function field(fields: Fields, name: string): string | undefined {
  const lines = fieldLines(fields, name)
  return lines.length === 0 ? undefined : lines.join(', ')
}

/** A JSON answer. */
export function json(status: number, value: unknown, fields: Fields = []): Answer {
  return { status, fields: [['Content-Type', 'application/json; charset=utf-8'], ...fields], body: JSON.stringify(value) }
}

/** An answer without a body. */
export function empty(status: number, fields: Fields = []): Answer {
  return { status, fields }
}

/** RFC 9110 §9.2.2: methods whose repetition has no further effect. */
export function isRepeatable(call: Call): boolean {
  return (
    ['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE'].includes(call.method) ||
    call.operation?.repeatable === true ||
    field(call.fields, 'idempotency-key') !== undefined
  )
}

/** Whether a status is one a caller should wait out and ask again. */
export function isTransient(status: number): boolean {
  return [408, 425, 429, 500, 502, 503, 504].includes(status)
}

/** `Retry-After` of an answer in provider milliseconds. A date has whole seconds only, so it is the date that counts, not what was meant. */
export function retryAfterMs(answer: Answer, clock: SandboxClock): number | undefined {
  const value = field(answer.fields, 'retry-after')
  if (value === undefined) return undefined
  if (/^\d+$/.test(value)) return Number(value) * 1000
  const date = Date.parse(value)
  return Number.isNaN(date) ? undefined : Math.max(0, date - clock.wallNow())
}

/** The members of a JSON body; none where it is not an object or does not claim to be JSON. */
export function membersOf(call: Call): ReadonlyMap<string, unknown> {
  if (field(call.fields, 'content-type')?.startsWith('application/json') !== true) return new Map()
  try {
    const value: unknown = JSON.parse(call.body.toString())
    return new Map(typeof value === 'object' && value !== null ? Object.entries(value) : [])
  } catch {
    return new Map()
  }
}

/** A member that is text, undefined where it is absent or anything else. */
export function textOf(members: ReadonlyMap<string, unknown>, name: string): string | undefined {
  const value = members.get(name)
  return typeof value === 'string' ? value : undefined
}
