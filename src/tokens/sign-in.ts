import { AuthorizationResponseError, calculatePKCECodeChallenge, generateRandomCodeVerifier, generateRandomState, validateAuthResponse } from 'oauth4webapi'
import { dpopProver, newDpopKey } from './dpop.ts'
import { tokenEndpoint, type Service } from './endpoint.ts'
import { printable, TokenFailure } from './failure.ts'
import { authorizationCode } from './grants/authorization-code.ts'
import { materialSource, type Material } from './material.ts'
import type { CredentialOptions } from './options.ts'
import { EMPTY_RECORD, recordKey, recordTtlMs, sealRecord } from './record.ts'
import { chainOf } from './renewal.ts'
import type { SourceTools } from './token-source.ts'

/** A sign-in under way: its state, verifier and place to come back to are its own. */
export type SignIn = {
  /** Where the person's browser has to go. */
  readonly url: string
  /**
   * Takes what the browser brought back, exchanges it and keeps the refresh token. Throws `SignInError`; one with
   * `isForeign` means that the response belongs to another sign-in or to an attacker, and ours may still come.
   */
  finish(response: URLSearchParams, signal: AbortSignal): Promise<void>
}

export class SignInError extends Error {
  readonly isForeign: boolean

  constructor(message: string, isForeign: boolean, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'SignInError'
    this.isForeign = isForeign
  }
}

/**
 * Begins a sign-in of a person for a `refresh_token` credential: authorization code with PKCE S256 and `state`, the
 * issuer of the response checked (RFC 6749 §4.1, RFC 7636, RFC 9207). Throws `SignInError`.
 */
export async function beginSignIn(name: string, options: CredentialOptions, tools: SourceTools, signal: AbortSignal): Promise<SignIn> {
  if (options.grant !== 'refresh_token') throw new SignInError(`credential ${name} has grant ${options.grant}: only refresh_token takes a sign-in`, false)
  const { clock, store } = tools
  const endpoint = tokenEndpoint(options, { ...tools, warn: () => {} })
  const material = materialSource(options, clock).current()
  const service = await told(() => endpoint.locate({ material, signal }))
  if (service.authorizationUrl === undefined) throw new SignInError(`credential ${name} needs authorizationUrl or an issuer that names one`, false)

  const state = generateRandomState()
  const verifier = generateRandomCodeVerifier()
  const url = new URL(service.authorizationUrl)
  const parameters = {
    ...options.authorizationParams,
    response_type: 'code',
    client_id: material.clientId ?? '',
    redirect_uri: options.redirectUri,
    ...(options.scope === undefined ? {} : { scope: options.scope }),
    ...(options.responseMode === 'query' ? {} : { response_mode: options.responseMode }),
    state,
    code_challenge: await calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256'
  }
  for (const [key, value] of Object.entries(parameters)) url.searchParams.set(key, value)

  async function finish(response: URLSearchParams, finishing: AbortSignal): Promise<void> {
    const code = codeIn(response, service, material, state)
    const dpopKey = options.dpop ? newDpopKey() : undefined
    const answer = await told(() =>
      endpoint.request({
        grant: authorizationCode(code, options.redirectUri, verifier),
        material,
        refreshToken: undefined,
        dpop: dpopKey === undefined ? undefined : dpopProver(dpopKey),
        signal: finishing,
        onRequest: ({ durationMs, failure }) =>
          tools.report({
            kind: 'token-request',
            credential: name,
            grant: 'authorization_code',
            reason: 'operator',
            result: failure === undefined ? 'success' : 'failure',
            durationMs,
            detail: failure?.detail
          })
      })
    )
    if (answer.refreshToken === undefined) throw new SignInError('the service gave no refresh token: its scope may have to name offline_access', false)
    const { accessToken: value, scheme, lifetimeMs, requestedAt, receivedAt } = answer
    const record = {
      ...EMPTY_RECORD,
      token: { value, scheme, lifetimeMs, requestedAt, receivedAt },
      refresh: {
        value: answer.refreshToken,
        expiresAt: answer.refreshLifetimeMs === undefined ? undefined : requestedAt + answer.refreshLifetimeMs,
        spentAt: undefined
      },
      chain: chainOf(material),
      ...(dpopKey === undefined ? {} : { dpopKey })
    }
    const ttlMs = recordTtlMs(record, clock.now())
    await store.put(recordKey(material), sealRecord(record, material), ttlMs === undefined ? {} : { ttlMs })
  }

  return { url: url.href, finish }
}

function codeIn(response: URLSearchParams, service: Service, material: Material, state: string): string {
  const known = new URLSearchParams(response)
  // Without a configured issuer there is nothing to compare its name with; state and verifier still tie the response to us.
  if (service.issuer === undefined) known.delete('iss')
  try {
    const valid = validateAuthResponse(
      { issuer: service.issuer ?? service.tokenUrl, authorization_response_iss_parameter_supported: service.namesItself },
      { client_id: material.clientId ?? '' },
      known,
      state
    )
    const code = valid.get('code')
    if (code === null || code === '') throw new SignInError('the browser brought no code back', false)
    return code
  } catch (error) {
    if (error instanceof SignInError) throw error
    if (error instanceof AuthorizationResponseError) {
      throw new SignInError(`the sign-in was refused: ${printable(`${error.error} ${error.error_description ?? ''}`, [])}`, false, error)
    }
    throw new SignInError('the response does not belong to this sign-in', true, error)
  }
}

async function told<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (error instanceof TokenFailure) throw new SignInError(`the token service cannot be used: ${error.message}`, false, error)
    throw error
  }
}
