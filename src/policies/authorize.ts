import { discard, pathOf, type Request, type Response } from '../exchange/message.ts'
import type { Policy, Send } from '../exchange/chain.ts'
import { Problem } from '../exchange/problem.ts'
import type { UpstreamTools } from '../exchange/tools.ts'
import { field, hasField, keepFields, withoutField, type Fields } from '../http/fields.ts'
import type { AttemptTarget, Authorization, Credentials, TokenSource } from '../tokens/source.ts'

// A shorter value occurs in answers by chance, and dropping fields for it would break them.
const SHORTEST_SECRET = 4
const LONGEST_CHALLENGE = 200

/**
 * Proves to the provider who we are, on every attempt: sets what the request's credential says, and never sends without it.
 *
 * A 401 for a token that has been replaced meanwhile, or that one forced renewal replaces, is answered by sending the
 * attempt once more, provided its body can be sent again (401 means not processed, RFC 9110 §15.5.2). One whose body is
 * gone is handed over, with a good token for the next: an app that only uploads would else never get one. 403 renews
 * nothing. Fields of answers that bear the live credential are dropped. Rejects with `token-unavailable` or
 * `credential-rejected` before anything is sent.
 */
export function authorize(options: { baseUrl: string }, tools: UpstreamTools & { credentials: Credentials }): Policy {
  const { clock, report, upstream } = tools
  const base = options.baseUrl.replace(/\/$/, '')

  return function authorize(request, next) {
    return request.credential === undefined ? next(request) : prove(request, next, request.credential)
  }

  async function prove(request: Request, next: Send, credential: string): Promise<Response> {
    const source = sourceNamed(credential)
    const attempt = { method: request.method, url: base + request.target, target: request.target }
    const ready = source.authorize(attempt, request.signal)
    // A held token is at hand: nothing to wait for on nearly every attempt.
    const authorization = ready instanceof Promise ? await timed(ready, request) : ready
    report({ kind: 'token-use', credential: source.name })
    const response = judged(await next(authorized(request, authorization)), source, attempt, authorization)
    if (response.status !== 401) return response
    const isRenewed = await source.rejected(attempt, authorization, response, request.signal)
    if (!isRenewed || request.body.kind === 'stream') return response
    const fresh = await freshFor(source, attempt, request)
    if (fresh === undefined) return response
    discard(response.body)
    report({ kind: 'token-use', credential: source.name })
    return judged(await next(authorized(request, fresh)), source, attempt, fresh)
  }

  /** What the answer says about the credential; gives what of it may be seen. */
  function judged(response: Response, source: TokenSource, attempt: AttemptTarget, authorization: Authorization): Response {
    source.answered?.(attempt, response)
    if (response.status === 401 || response.status === 403) {
      const challenge = field(response.fields, 'www-authenticate')?.slice(0, LONGEST_CHALLENGE)
      report({ kind: 'auth-error', upstream, credential: source.name, status: response.status, challenge: withoutSecrets(challenge, authorization) })
    }
    return withoutEcho(response, authorization)
  }

  function sourceNamed(name: string): TokenSource {
    const source = tools.credentials.get(name)
    if (source === undefined) throw new Problem('token-unavailable', { detail: `credential ${name} is not configured` })
    return source
  }

  async function timed(ready: Promise<Authorization>, request: Request): Promise<Authorization> {
    const startedAt = clock.now()
    try {
      return await ready
    } finally {
      request.trace.tokenMs += clock.now() - startedAt
    }
  }

  async function freshFor(source: TokenSource, attempt: AttemptTarget, request: Request): Promise<Authorization | undefined> {
    try {
      return await source.authorize(attempt, request.signal)
    } catch {
      // The provider's 401 is there to be handed over; the token room has reported why there is nothing better.
      return undefined
    }
  }
}

/** The request with the credential on it, in place of any field or parameter of the same name, however spelled. */
function authorized(request: Request, authorization: Authorization): Request {
  const { clientCertificate, secrets } = authorization
  const fields = withAuthorization(request.fields, authorization.fields)
  const target = withQuery(request.target, authorization)
  const interim = request.interim === undefined ? undefined : withoutSecretsIn(request.interim, secrets)
  const proven = interim === undefined ? { ...request, fields, target } : { ...request, fields, target, interim }
  return clientCertificate === undefined ? proven : { ...proven, clientCertificate }
}

function withoutSecretsIn(interim: NonNullable<Request['interim']>, secrets: readonly string[]): NonNullable<Request['interim']> {
  return (status, fields) =>
    interim(
      status,
      keepFields(fields, (_name, value) => !bears(value, secrets))
    )
}

function withAuthorization(fields: Fields, set: Fields): Fields {
  let kept = fields
  for (let i = 0; i < set.length; i += 2) {
    const name = (set[i] as string).toLowerCase()
    if (hasField(kept, name)) kept = withoutField(kept, name)
  }
  return [...kept, ...set]
}

/** The target without what the caller would prove itself by in the query, and with what the credential says there; else byte for byte. */
function withQuery(target: string, { query, fields }: Authorization): string {
  if (query === undefined && !target.includes('?')) return target
  const replaced = query === undefined ? nameOfTokenIn(fields) : nameOf(query)
  const bare = replaced === undefined ? target : withoutParameter(target, replaced)
  return query === undefined ? bare : `${bare}${bare.includes('?') ? '&' : '?'}${query}`
}

/** A token stands in one place of a request only (RFC 6750 §2): beside ours none of the caller's in the query (§2.3). */
function nameOfTokenIn(fields: Fields): string | undefined {
  return /^(?:bearer|dpop) /i.test(field(fields, 'authorization') ?? '') ? 'access_token' : undefined
}

function withoutParameter(target: string, name: string): string {
  const path = pathOf(target)
  const parameters = target.slice(path.length + 1).split('&')
  const kept = parameters.filter((parameter) => nameOf(parameter) !== name)
  if (kept.length === parameters.length) return target
  return kept.length === 0 ? path : `${path}?${kept.join('&')}`
}

/** Decoded, and in lower case: there are providers to whom `API_KEY` is the same. */
function nameOf(parameter: string): string | undefined {
  return new URLSearchParams(parameter).keys().next().value?.toLowerCase()
}

/** Some providers repeat what they were sent; the app must not see it. */
function withoutEcho(response: Response, { secrets }: Authorization): Response {
  const { fields } = response
  for (let i = 1; i < fields.length; i += 2) {
    if (bears(fields[i] as string, secrets)) return { ...response, fields: keepFields(fields, (_name, value) => !bears(value, secrets)) }
  }
  return response
}

function bears(value: string, secrets: readonly string[]): boolean {
  // nearly every value is too short to hold a token
  return secrets.some((secret) => secret.length >= SHORTEST_SECRET && value.length >= secret.length && value.includes(secret))
}

function withoutSecrets(text: string | undefined, authorization: Authorization): string | undefined {
  return text === undefined ? undefined : authorization.secrets.reduce((clean, secret) => (secret === '' ? clean : clean.replaceAll(secret, '[secret]')), text)
}
