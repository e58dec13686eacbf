import {
  field,
  fieldLines,
  json,
  retryAfterMs,
  type Answer,
  type Bench,
  type Provider,
  type RefusalKind,
  type Rule,
  type TokenAsk,
  type TokenRequest
} from './call.ts'
import { verifyAssertion, type RegisteredKey } from './assertion.ts'
import type { Token } from './tokens.ts'

export type ClientAuth = 'client_secret_basic' | 'client_secret_post' | 'private_key_jwt'

export type RegisteredClient = { readonly id: string; readonly secret?: string; readonly keys?: readonly RegisteredKey[] }

/** One grant of a token endpoint: which token it is about, and the answer. */
export type Grant = {
  /** Everything that makes one token different from another, e.g. the scope; written to no log. */
  subject(form: URLSearchParams): string
  /** Issues a token with what its answer says, or an OAuth error. */
  issue(ask: TokenAsk, form: URLSearchParams): Issued | OAuthError
}
export type Issued = { readonly token: Token; readonly answer: Record<string, unknown> }
export type OAuthError = { readonly error: string; readonly status?: number; readonly retryAfterS?: number }

export type TokenEndpointOptions = {
  readonly clients: () => readonly RegisteredClient[]
  readonly auth: readonly ClientAuth[]
  readonly audiences: (request: TokenRequest) => readonly string[]
  readonly grants: Readonly<Record<string, Grant>>
  /** Fields that belong to the API and have no business here. */
  readonly foreign: readonly string[]
  /** Clauses: a malformed request; a bad or reused assertion; a secret where logs keep it; an expired certificate. */
  readonly clauses: { readonly form: string; readonly assertion: string; readonly exposed: string; readonly tenant?: string; readonly outlived?: string }
  readonly rules: readonly Rule[]
}

const NO_STORE = [
  ['Cache-Control', 'no-store'],
  ['Pragma', 'no-cache']
] as const
const SECRET_PARAMETERS = ['client_secret', 'client_assertion', 'assertion', 'password', 'refresh_token', 'code']
const MOST_JTIS = 100_000

/** A strict RFC 6749 token endpoint: POST, one form, nothing twice, one way to prove who you are. */
export function tokenEndpoint(options: TokenEndpointOptions, bench: Bench): Provider['token'] {
  const seenAssertions = new Set<string>()

  return function token(request, instead) {
    const form = new URLSearchParams(request.body.toString())
    const mistake = check(request, form)
    const identified = mistake === undefined ? identify(request, form) : undefined
    const client = identified !== undefined && 'client' in identified ? identified.client : (form.get('client_id') ?? 'unknown')
    const grant = options.grants[form.get('grant_type') ?? '']
    const ask = { at: request.at, client, subject: grant?.subject(form) ?? '', grant: form.get('grant_type') ?? '' }
    for (const rule of options.rules) rule.tokenAsked?.(ask)
    if (instead !== undefined) {
      // a fault of the service says nothing about the credential
      for (const rule of options.rules) rule.tokenRefused?.(ask, { kind: 'later', retryAfterMs: retryAfterMs(instead, bench.clock) })
      return { answer: instead, token: undefined }
    }
    const result = mistake ?? (identified !== undefined && 'error' in identified ? identified : grantOrError(ask, grant, form))
    if ('token' in result) {
      for (const rule of options.rules) rule.tokenIssued?.(ask, result.token)
      return { answer: json(200, { access_token: result.token.value, ...result.answer }, NO_STORE), token: result.token }
    }
    const refusal = refuse(result, request)
    for (const rule of options.rules) rule.tokenRefused?.(ask, { kind: kindOf(result, ask), retryAfterMs: retryAfterMs(refusal, bench.clock) })
    return { answer: refusal, token: undefined }
  }

  function grantOrError(ask: TokenAsk, grant: Grant | undefined, form: URLSearchParams): Issued | OAuthError {
    if (grant !== undefined) return grant.issue(ask, form)
    bench.note(options.clauses.form, 'S1', ask.client, 'a grant this service does not offer')
    return { error: 'unsupported_grant_type' }
  }

  /** The shape of the request, before anybody asks who sent it. */
  function check(request: TokenRequest, form: URLSearchParams): OAuthError | undefined {
    const note = (clause: string, detail: string): void => bench.note(clause, 'S1', form.get('client_id') ?? 'unknown', detail)
    const exposed = SECRET_PARAMETERS.find((name) => request.url.searchParams.has(name))
    if (exposed !== undefined) note(options.clauses.exposed, `${exposed} in the query of a token request`)
    for (const name of options.foreign)
      if (field(request.fields, name.toLowerCase()) !== undefined) note(options.clauses.tenant ?? options.clauses.form, `${name} on a token request`)
    const doubled = [...form.keys()].find((name, index, all) => all.indexOf(name) !== index)
    if (doubled !== undefined) note(options.clauses.form, `parameter ${doubled} twice`)
    const isForm = /^application\/x-www-form-urlencoded\b/i.test(field(request.fields, 'content-type') ?? '')
    if (request.method !== 'POST' || !isForm) note(options.clauses.form, 'a token request is a POST of a form')
    return exposed !== undefined || doubled !== undefined || request.method !== 'POST' || !isForm ? { error: 'invalid_request' } : undefined
  }

  function identify(request: TokenRequest, form: URLSearchParams): { client: string } | OAuthError {
    const basic = basicOf(request)
    const used: ClientAuth[] = []
    if (basic !== undefined) used.push('client_secret_basic')
    if (form.has('client_secret')) used.push('client_secret_post')
    if (form.has('client_assertion')) used.push('private_key_jwt')
    const method = used[0]
    if (used.length !== 1 || method === undefined || !options.auth.includes(method)) {
      bench.note(
        options.clauses.form,
        'S1',
        form.get('client_id') ?? 'unknown',
        used.length > 1 ? 'two client authentications at once' : 'no client authentication this service accepts'
      )
      return { error: used.length > 1 ? 'invalid_request' : 'invalid_client' }
    }
    if (method === 'private_key_jwt') return identifyByAssertion(request, form)
    const id = basic?.id ?? form.get('client_id')
    const secret = basic?.secret ?? form.get('client_secret')
    const known = options.clients().find((client) => client.id === id && client.secret !== undefined && client.secret === secret)
    return known === undefined ? { error: 'invalid_client' } : { client: known.id }
  }

  function identifyByAssertion(request: TokenRequest, form: URLSearchParams): { client: string } | OAuthError {
    const assertion = form.get('client_assertion') ?? ''
    const clients = options.clients()
    const verdict = verifyAssertion(assertion, {
      keys: clients.flatMap((client) => client.keys ?? []),
      audiences: options.audiences(request),
      wallNow: bench.clock.wallNow()
    })
    const claimed = verdict.client ?? form.get('client_id') ?? 'unknown'
    const faults = [...verdict.faults]
    if (form.get('client_assertion_type') !== 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer') faults.push('client_assertion_type is wrong')
    if (form.has('client_id') && verdict.client !== undefined && form.get('client_id') !== verdict.client) faults.push('client_id is not sub')
    if (verdict.jti !== undefined && seenAssertions.has(verdict.jti)) faults.push('jti was used before')
    if (verdict.jti !== undefined && seenAssertions.size < MOST_JTIS) seenAssertions.add(verdict.jti)
    if (faults.length === 0 && !clients.some((client) => client.id === verdict.client)) faults.push('nobody known speaks here')
    for (const fault of faults) bench.note(options.clauses.assertion, 'S1', claimed, fault)
    if (verdict.isOutlived) bench.note(options.clauses.outlived ?? options.clauses.assertion, 'S1', claimed, 'signed with a key whose certificate has expired')
    return faults.length > 0 || verdict.isOutlived || verdict.client === undefined ? { error: 'invalid_client' } : { client: verdict.client }
  }
}

function kindOf({ error }: OAuthError, ask: TokenAsk): RefusalKind {
  if (error === 'invalid_grant' && ask.grant === 'refresh_token') return 'stale'
  return ['invalid_client', 'unauthorized_client', 'unsupported_grant_type', 'invalid_scope', 'invalid_grant'].includes(error) ? 'final' : 'later'
}

function refuse(error: OAuthError, request: TokenRequest): Answer {
  const status = error.status ?? (error.error === 'invalid_client' ? 401 : 400)
  const challenge = status === 401 && basicOf(request) !== undefined ? ([['WWW-Authenticate', 'Basic realm="token"']] as const) : []
  const wait = error.retryAfterS === undefined ? [] : ([['Retry-After', String(error.retryAfterS)]] as const)
  // the description changes its wording on purpose: nobody may match on it
  return json(status, { error: error.error, error_description: `${error.error.replaceAll('_', ' ')} (${Math.round(request.at)})` }, [
    ...NO_STORE,
    ...challenge,
    ...wait
  ])
}

/** RFC 6749 §2.3.1: id and secret are form-encoded before they are joined. */
function basicOf(request: TokenRequest): { id: string; secret: string } | undefined {
  const value = /^basic +([\w+/=]+)$/i.exec(fieldLines(request.fields, 'authorization')[0] ?? '')?.[1]
  if (value === undefined) return undefined
  const [id = '', ...secret] = Buffer.from(value, 'base64').toString().split(':')
  const decoded = new URLSearchParams(`id=${id}&secret=${secret.join(':')}`)
  return { id: decoded.get('id') ?? '', secret: decoded.get('secret') ?? '' }
}
