import {
  allowInsecureRequests,
  customFetch,
  discoveryRequest,
  OperationProcessingError,
  processDiscoveryResponse,
  type AuthorizationServer
} from 'oauth4webapi'
import { isLoopback } from '../http/loopback.ts'
import { TokenFailure } from './failure.ts'
import { FetchFailure, type FetchAnswer } from './fetch.ts'

/** Fetches one document of the token service; rejects with `FetchFailure`. */
export type Get = (url: string) => Promise<FetchAnswer>

/**
 * Asks an issuer for its metadata (RFC 8414 §3, else OpenID Connect Discovery) and checks that they are its own.
 *
 * The token endpoint must be https: (loopback apart) and on the issuer's host or one of `otherHosts`: credentials go to
 * configured hosts only. Throws `TokenFailure`.
 */
export async function discover(issuer: string, otherHosts: readonly string[], get: Get): Promise<AuthorizationServer> {
  const metadata = await fetchMetadata(new URL(issuer), get)
  const named = [metadata.token_endpoint, metadata.mtls_endpoint_aliases?.token_endpoint, metadata.authorization_endpoint]
  if (metadata.token_endpoint === undefined) throw new TokenFailure('unusable', 'its metadata name no token_endpoint: set tokenUrl', { mayHaveArrived: false })
  for (const endpoint of named) if (endpoint !== undefined) checkEndpoint(endpoint, new URL(issuer), otherHosts)
  return metadata
}

async function fetchMetadata(issuer: URL, get: Get): Promise<AuthorizationServer> {
  let failure: unknown
  for (const algorithm of ['oauth2', 'oidc'] as const) {
    try {
      const response = await discoveryRequest(issuer, {
        algorithm,
        // Which URLs may be http: is decided with the config: loopback only.
        [allowInsecureRequests]: true,
        [customFetch]: async (url) => asResponse(await get(url))
      })
      if (algorithm === 'oauth2' && response.status === 404) continue
      return await processDiscoveryResponse(issuer, response)
    } catch (cause) {
      if (cause instanceof FetchFailure) throw new TokenFailure('unreachable', cause.message, { mayHaveArrived: false, cause })
      failure = cause
      // Somebody else's metadata are an attack or a mistake; asking in another way makes them no better.
      break
    }
  }
  const mixedUp = failure instanceof OperationProcessingError && failure.code === 'OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED'
  throw new TokenFailure('unusable', mixedUp ? 'its metadata are those of another issuer' : 'its metadata cannot be read: set tokenUrl', {
    mayHaveArrived: false,
    cause: failure
  })
}

function checkEndpoint(endpoint: string, issuer: URL, otherHosts: readonly string[]): void {
  const url = URL.parse(endpoint)
  const secure = url !== null && (url.protocol === 'https:' || (url.protocol === 'http:' && isLoopback(url.hostname)))
  if (!secure) throw new TokenFailure('unusable', 'its metadata name an endpoint that is not https:', { mayHaveArrived: false })
  if (url.hostname !== issuer.hostname && !otherHosts.includes(url.hostname)) {
    throw new TokenFailure('unusable', 'its metadata name an endpoint on another host: list that in tokenHosts, or set tokenUrl', { mayHaveArrived: false })
  }
}

function asResponse(answer: FetchAnswer): Response {
  // Only these matter to discovery; a Response refuses bodies and field values that real servers send.
  return new Response(answer.status === 200 ? answer.text : null, {
    status: answer.status >= 200 && answer.status <= 599 ? answer.status : 502,
    headers: { 'content-type': 'application/json' }
  })
}
