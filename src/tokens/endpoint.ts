import type { AuthorizationServer } from 'oauth4webapi'
import type { Clock } from '../exchange/clock.ts'
import { field } from '../http/fields.ts'
import { parseHttpDate } from '../http/http-date.ts'
import { readTokenAnswer, type TokenAnswer } from './answer.ts'
import { signAssertion, type Signer } from './assertion.ts'
import { clientAuthOf } from './check.ts'
import { clientAuthentication } from './client-auth.ts'
import { discover } from './discovery.ts'
import type { DpopProver } from './dpop.ts'
import { printable, TokenFailure } from './failure.ts'
import { FetchFailure, type FetchAnswer, type FetchOptions, type TokenFetch } from './fetch.ts'
import { configured, type Grant } from './grants/grant.ts'
import { KeyError } from './key-error.ts'
import { tlsIdentity } from './key-material.ts'
import type { Material } from './material.ts'
import type { CredentialOptions } from './options.ts'

/** One wish for a token. */
export type TokenWish = {
  readonly grant: Grant
  readonly material: Material
  readonly refreshToken: string | undefined
  readonly dpop: DpopProver | undefined
  /** Of the flight; ends it when the process stops. */
  readonly signal: AbortSignal
  /** Told of every request that is made, as it ends. */
  onRequest(outcome: { durationMs: number; failure: TokenFailure | undefined }): void
}

/** Where a token service is and what it calls itself. */
export type Service = {
  readonly tokenUrl: string
  readonly issuer: string | undefined
  readonly authorizationUrl: string | undefined
  /** Whether it names itself in authorization responses (RFC 9207 §3). */
  readonly namesItself: boolean
}

export type TokenEndpoint = {
  /** Finds the service, by asking the issuer where that is not configured. Throws `TokenFailure`. */
  locate(wish: Pick<TokenWish, 'material' | 'signal'>): Promise<Service>
  /** Asks for a token: one request, and one more where the service's clock or its nonce has to be learnt first. Throws `TokenFailure`. */
  request(wish: TokenWish): Promise<TokenAnswer & { readonly requestedAt: number; readonly receivedAt: number }>
}

type EndpointTools = { readonly clock: Clock; readonly tokenFetch: TokenFetch; readonly version: string; warn(message: string): void }

const METADATA_MS = 86_400_000
// Below this a difference is the second that `Date` cannot show, and the way there.
const SKEW_THAT_MATTERS_MS = 5_000
const SKEW_TO_WARN_OF_MS = 60_000
// Errors that a wrong iat or exp can cause: the code alone does not tell (RFC 7523 §3.2).
const CLOCK_ERRORS = ['invalid_client', 'invalid_grant', 'invalid_request', 'invalid_dpop_proof', 'unauthorized_client']

/** The token service of one credential. */
export function tokenEndpoint(options: CredentialOptions, tools: EndpointTools): TokenEndpoint {
  const { clock } = tools
  const clientAuth = clientAuthOf(options)
  const signs = options.grant === 'jwt_bearer' || clientAuth.endsWith('_jwt') || options.dpop
  let skewMs = 0
  let metadata: { found: AuthorizationServer; until: number } | undefined

  async function request(wish: TokenWish): ReturnType<TokenEndpoint['request']> {
    let skewBefore = skewMs
    let nonceTried = false
    const service = await locate(wish)
    for (;;) {
      const requestedAt = clock.now()
      try {
        const answer = await once(wish, service)
        return { ...answer, lifetimeMs: Math.min(answer.lifetimeMs, leftMs(wish)), requestedAt, receivedAt: clock.now() }
      } catch (failure) {
        if (!(failure instanceof TokenFailure)) throw failure
        const nonceWanted: boolean = failure.error === 'use_dpop_nonce' && !nonceTried
        const clockWasWrong = signs && skewMs !== skewBefore && CLOCK_ERRORS.includes(failure.error ?? '')
        if (!nonceWanted && !clockWasWrong) throw failure
        nonceTried ||= nonceWanted
        skewBefore = skewMs
      }
    }
  }

  /** How long what the token is issued for lasts, in clock milliseconds. */
  function leftMs({ grant, material }: TokenWish): number {
    const endsAt = grant.endsAt?.(material)
    return endsAt === undefined ? Infinity : Math.max(1000, (endsAt - clock.wallNow() - skewMs) / clock.realMs(1))
  }

  async function once(wish: TokenWish, service: Service): Promise<TokenAnswer> {
    const message = await compose(wish, service)
    const startedAt = clock.now()
    let failure: TokenFailure | undefined
    try {
      const answer = await send(message.url, message.request, wish)
      learnFrom(answer)
      wish.dpop?.noteNonce(message.url, field(answer.fields, 'dpop-nonce'))
      return readTokenAnswer(answer, {
        scheme: options.dpop ? 'DPoP' : 'Bearer',
        defaultLifetimeMs: options.defaultLifetime,
        secrets: [...wish.material.secrets, ...message.secrets],
        wallNowMs: clock.wallNow()
      })
    } catch (error) {
      failure = asFailure(error)
      throw failure
    } finally {
      wish.onRequest({ durationMs: clock.now() - startedAt, failure })
    }
  }

  /** Method, URL, fields and body of one token request; everything that must differ between two is made here. */
  async function compose(wish: TokenWish, service: Service): Promise<{ url: string; request: Pick<FetchOptions, 'headers' | 'body'>; secrets: string[] }> {
    const { material, grant } = wish
    const sign = (claims: Readonly<Record<string, unknown>>, subject: string | undefined): Promise<string> =>
      signAssertion(options.assertion, signer(material), {
        issuer: options.assertion.issuer ?? configured(material.clientId, 'clientId'),
        subject,
        serviceIssuer: service.issuer,
        tokenUrl: service.tokenUrl,
        nowMs: clock.wallNow() + skewMs,
        claims
      })
    const parameters = new URLSearchParams([['grant_type', grant.type]])
    const own = await grant.parameters({ options, material, refreshToken: wish.refreshToken, sign: (claims) => sign(claims, undefined) })
    for (const [name, value] of own) parameters.append(name, value)
    if (grant.namesScope && material.scope !== undefined) parameters.set('scope', material.scope)
    for (const [name, values] of Object.entries(options.params)) {
      parameters.delete(name)
      for (const value of [values].flat()) parameters.append(name, value)
    }

    const headers = new Headers({ accept: 'application/json', 'user-agent': `attache/${tools.version}` })
    const authenticate = clientAuthentication(options, material, () => sign({}, material.clientId))
    await authenticate({ issuer: service.issuer ?? service.tokenUrl }, { client_id: material.clientId ?? '' }, parameters, headers)
    if (wish.dpop !== undefined) headers.set('dpop', await wish.dpop.prove('POST', service.tokenUrl, clock.wallNow() + skewMs))

    const secrets = ['client_assertion', 'assertion', 'refresh_token', 'code', 'code_verifier']
      .map((name) => parameters.get(name))
      .filter((value) => value !== null)
    const { url, body, type } = place(parameters, service.tokenUrl)
    headers.set('content-type', type)
    return { url, request: { headers: Object.fromEntries(headers), body }, secrets }
  }

  function place(parameters: URLSearchParams, tokenUrl: string): { url: string; body: string; type: string } {
    if (options.paramLocation === 'query') {
      const url = new URL(tokenUrl)
      for (const [name, value] of parameters) url.searchParams.append(name, value)
      return { url: url.href, body: '', type: 'application/x-www-form-urlencoded' }
    }
    if (options.bodyFormat === 'json') {
      const entries = [...new Set(parameters.keys())].map((name) => [name, single(parameters.getAll(name))])
      return { url: tokenUrl, body: JSON.stringify(Object.fromEntries(entries)), type: 'application/json' }
    }
    return { url: tokenUrl, body: parameters.toString(), type: 'application/x-www-form-urlencoded' }
  }

  async function send(
    url: string,
    request: Pick<FetchOptions, 'headers' | 'body'>,
    wish: Pick<TokenWish, 'material' | 'signal'>,
    method: 'GET' | 'POST' = 'POST'
  ): Promise<FetchAnswer> {
    const { material, signal } = wish
    const ending = new AbortController()
    const end = (): void => ending.abort()
    const timer = clock.after(options.timeout, end)
    signal.addEventListener('abort', end, { once: true })
    if (signal.aborted) end()
    try {
      return await tools.tokenFetch(url, {
        ...request,
        method,
        signal: ending.signal,
        ...(material.ca === undefined ? {} : { ca: material.ca }),
        ...(clientAuth.endsWith('tls_client_auth') && material.key !== undefined ? { certificate: tlsIdentity(material.key) } : {})
      })
    } finally {
      timer.cancel()
      signal.removeEventListener('abort', end)
    }
  }

  async function locate(wish: Pick<TokenWish, 'material' | 'signal'>): Promise<Service> {
    const { tokenUrl, authorizationUrl, issuer } = options
    if (tokenUrl !== undefined) return { tokenUrl, issuer, authorizationUrl, namesItself: false }
    const found = await metadataOf(configured(issuer, 'issuer'), wish)
    const aliased = clientAuth.endsWith('tls_client_auth') ? found.mtls_endpoint_aliases?.token_endpoint : undefined
    return {
      tokenUrl: configured(aliased ?? found.token_endpoint, 'tokenUrl'),
      issuer: found.issuer,
      authorizationUrl: authorizationUrl ?? found.authorization_endpoint,
      namesItself: found.authorization_response_iss_parameter_supported ?? false
    }
  }

  async function metadataOf(issuer: string, wish: Pick<TokenWish, 'material' | 'signal'>): Promise<AuthorizationServer> {
    const now = clock.now()
    if (metadata !== undefined && metadata.until > now) return metadata.found
    const headers = { accept: 'application/json', 'user-agent': `attache/${tools.version}` }
    try {
      const found = await discover(issuer, options.tokenHosts, (url) => send(url, { headers }, wish, 'GET'))
      metadata = { found, until: now + METADATA_MS }
      return found
    } catch (error) {
      // No token request comes of it, so nothing else would tell.
      if (error instanceof TokenFailure) tools.warn(`the issuer cannot be used: ${error.message}`)
      throw error
    }
  }

  /** The service's clock, from its `Date`: what an assertion's `iat` and `exp` are judged by. */
  function learnFrom(answer: FetchAnswer): void {
    const date = parseHttpDate(field(answer.fields, 'date') ?? '')
    if (date === undefined) return
    const measured = date + 500 - clock.wallNow()
    const next = Math.abs(measured) > SKEW_THAT_MATTERS_MS ? measured : 0
    if (Math.abs(next) > SKEW_TO_WARN_OF_MS && Math.abs(next - skewMs) > SKEW_THAT_MATTERS_MS) {
      tools.warn(`our clock and the token service’s differ by ${Math.round(Math.abs(next) / 1000)} seconds: correct ours`)
    }
    if (Math.abs(next - skewMs) > SKEW_THAT_MATTERS_MS || next === 0) skewMs = next
  }

  function signer(material: Material): Signer {
    if (clientAuth === 'client_secret_jwt' && options.grant !== 'jwt_bearer')
      return { kind: 'secret', secret: configured(material.clientSecret, 'clientSecret') }
    if (material.key === undefined) throw new KeyError('key is not configured')
    return { kind: 'key', material: material.key }
  }

  return { locate, request }
}

function single(values: string[]): string | string[] | undefined {
  return values.length === 1 ? values[0] : values
}

function asFailure(error: unknown): TokenFailure {
  if (error instanceof TokenFailure) return error
  if (error instanceof FetchFailure) {
    return new TokenFailure('unreachable', error.message, { mayHaveArrived: error.sent, detail: printable(error.message, []), cause: error })
  }
  return new TokenFailure('unreachable', 'it cannot be asked', { mayHaveArrived: true, cause: error })
}
