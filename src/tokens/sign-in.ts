import { AuthorizationResponseError, calculatePKCECodeChallenge, generateRandomCodeVerifier, generateRandomState, validateAuthResponse } from 'oauth4webapi'
import { claimOf } from './claim.ts'
import { dpopProver, newDpopKey } from './dpop.ts'
import { tokenEndpoint, type Service } from './endpoint.ts'
import { printable, TokenFailure } from './failure.ts'
import { authorizationCode } from './grants/authorization-code.ts'
import { KeyError } from './key-error.ts'
import { materialSource, withVariant, type Material } from './material.ts'
import type { CredentialOptions } from './options.ts'
import { EMPTY_RECORD, recordKey, recordTtlMs, sealRecord, type TokenRecord } from './record.ts'
import { chainOf } from './renewal.ts'
import type { SourceTools } from './token-source.ts'

/** A sign-in under way: its state and verifier are its own. */
export type SignIn = {
  /** Where the person's browser has to go. */
  readonly url: string
  /**
   * Takes what the browser brought back, exchanges it and keeps the refresh token. Throws `SignInError`; one with
   * `isForeign` means that the response belongs to another sign-in or to an attacker, and ours may still come.
   */
  finish(response: URLSearchParams): Promise<void>
}

/** What a sign-in is for, and where the browser comes back to: exactly as the token service is told. */
export type SignInTarget = { readonly redirectUri: string; readonly key: string | undefined }

export class SignInError extends Error {
  readonly isForeign: boolean

  constructor(message: string, more: { isForeign?: boolean; cause?: unknown } = {}) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause })
    this.name = 'SignInError'
    this.isForeign = more.isForeign ?? false
  }
}

/**
 * Begins a sign-in of a person for a `refresh_token` credential: authorization code with PKCE S256 and `state`, the
 * issuer of the response checked (RFC 6749 §4.1, RFC 7636, RFC 9207). Throws `SignInError`.
 */
export async function beginSignIn(name: string, options: CredentialOptions, target: SignInTarget, tools: SourceTools): Promise<SignIn> {
  checkTarget(name, options, target)
  const { clock, store } = tools
  const effective = withVariant(options, target.key)
  const endpoint = tokenEndpoint(effective, { ...tools, warn: () => {} })
  const material = readable(name, () => materialSource(options, clock, target.key).current())
  // Nothing ends it but its own timeout: a code that is on its way is worth waiting for.
  const { signal } = new AbortController()
  const service = await told('cannot be found', () => endpoint.locate({ material, signal }))
  if (service.authorizationUrl === undefined) throw new SignInError(`credential ${name} needs authorizationUrl, or an issuer alone, whose metadata name one`)

  const state = generateRandomState()
  const verifier = generateRandomCodeVerifier()
  const url = new URL(service.authorizationUrl)
  const parameters = {
    ...options.authorizationParams,
    response_type: 'code',
    client_id: material.clientId ?? '',
    redirect_uri: target.redirectUri,
    ...(material.scope === undefined ? {} : { scope: material.scope }),
    ...(options.responseMode === 'query' ? {} : { response_mode: options.responseMode }),
    state,
    code_challenge: await calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256'
  }
  for (const [key, value] of Object.entries(parameters)) url.searchParams.set(key, value)

  async function finish(response: URLSearchParams): Promise<void> {
    const code = codeIn(response, service, material, state)
    // Between two requests of the managers that share the state, so that neither writes over the other.
    const claimed = await claimOf<never, undefined>(recordKey(material), { clock, store, giveUpAfterMs: options.timeout, signal }, async () => ({
      open: undefined
    }))
    if (claimed.kind !== 'claimed') throw new SignInError('a token request of a running sidecar does not end: sign in again in a moment')
    try {
      const record = await exchange(code)
      const ttlMs = recordTtlMs(record, clock.now())
      const isKept = await store.put(recordKey(material), sealRecord(record, material), {
        fence: claimed.claim.fence,
        ...(ttlMs === undefined ? {} : { ttlMs })
      })
      if (!isKept) throw new SignInError('another process has written the state meanwhile: sign in again')
    } finally {
      await claimed.claim.release()
    }
  }

  async function exchange(code: string): Promise<TokenRecord> {
    const dpopKey = options.dpop ? newDpopKey() : undefined
    const answer = await told('gave no token', () =>
      endpoint.request({
        grant: authorizationCode(code, target.redirectUri, verifier),
        material,
        refreshToken: undefined,
        dpop: dpopKey === undefined ? undefined : dpopProver(dpopKey),
        signal,
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
    const { accessToken: value, scheme, lifetimeMs, requestedAt, receivedAt, refreshToken, refreshLifetimeMs } = answer
    if (refreshToken === undefined) {
      throw new SignInError(
        'the token service gave no refresh token: scope may have to name offline_access, and some want authorizationParams: { prompt: consent } too'
      )
    }
    return {
      ...EMPTY_RECORD,
      token: { value, scheme, lifetimeMs, requestedAt, receivedAt },
      refresh: { value: refreshToken, expiresAt: refreshLifetimeMs === undefined ? undefined : requestedAt + refreshLifetimeMs, spentAt: undefined },
      // A first refresh token in the config is older than this sign-in.
      chain: chainOf(material),
      ...(dpopKey === undefined ? {} : { dpopKey })
    }
  }

  return { url: url.href, finish }
}

function checkTarget(name: string, options: CredentialOptions, { key }: SignInTarget): void {
  if (options.grant !== 'refresh_token') throw new SignInError(`credential ${name} has grant ${options.grant}: only refresh_token takes a sign-in`)
  const listed = Object.keys(options.variants)
  if (options.perKey === undefined) {
    if (key !== undefined) throw new SignInError(`credential ${name} has no perKey, so it takes no key`)
  } else if (key === undefined) throw new SignInError(`credential ${name} has a token per ${options.perKey}: say with --key whose`)
  else if (listed.length > 0 && !listed.includes(key)) throw new SignInError(`credential ${name} has no variant ${key}: list it in variants`)
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
    const [code, ...more] = valid.getAll('code')
    if (code === undefined || code === '' || more.length > 0) throw new SignInError('the browser brought no code back')
    return code
  } catch (error) {
    if (error instanceof SignInError) throw error
    if (error instanceof AuthorizationResponseError) throw new SignInError(refusal(error), { cause: error })
    throw new SignInError(foreignness(known, service, state), { isForeign: true, cause: error })
  }
}

function refusal({ error, error_description: description }: AuthorizationResponseError): string {
  const words = printable([error, description ?? ''].join(' '), [])
  return error === 'access_denied' ? `the sign-in was declined: ${words}` : `the sign-in was refused: ${words}`
}

/** Why a response is not ours, for the person who waits; that it is not was decided before. */
function foreignness(response: URLSearchParams, service: Service, state: string): string {
  const isOurs = response.getAll('state').length === 1 && response.get('state') === state
  if (!isOurs) return response.has('state') ? 'its state is not that of this sign-in' : 'it has no state'
  if (!response.has('iss') && service.namesItself) return 'it does not name its issuer'
  if (response.has('iss') && response.get('iss') !== service.issuer) return 'its issuer is not that of the credential'
  return 'it is not what was asked for'
}

function readable(name: string, read: () => Material): Material {
  try {
    return read()
  } catch (error) {
    if (error instanceof KeyError) throw new SignInError(`credential ${name}: ${error.message}`, { cause: error })
    throw error
  }
}

async function told<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (error instanceof KeyError) throw new SignInError(error.message, { cause: error })
    if (!(error instanceof TokenFailure)) throw error
    const detail = error.detail === undefined ? '' : ` (${error.detail})`
    throw new SignInError(`the token service ${what}: ${error.message}${detail}`, { cause: error })
  }
}
