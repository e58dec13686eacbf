import { ClientSecretPost, None, TlsClientAuth, type ClientAuth } from 'oauth4webapi'
import { clientAuthOf } from './check.ts'
import { configured } from './grants/grant.ts'
import type { Material } from './material.ts'
import type { CredentialOptions } from './options.ts'

const JWT_BEARER_ASSERTION = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'

/** How the client proves to the token service who it is. `sign` makes a fresh assertion for every request. */
export function clientAuthentication(options: CredentialOptions, material: Material, sign: () => Promise<string>): ClientAuth {
  switch (clientAuthOf(options)) {
    case 'client_secret_basic':
      return basic(configured(material.clientSecret, 'clientSecret'), options.basicEncoding)
    case 'client_secret_post':
      return ClientSecretPost(configured(material.clientSecret, 'clientSecret'))
    case 'client_secret_jwt':
    case 'private_key_jwt':
      return async function assertion(_service, client, body) {
        body.set('client_id', client.client_id)
        body.set('client_assertion_type', JWT_BEARER_ASSERTION)
        body.set('client_assertion', await sign())
      }
    case 'tls_client_auth':
    case 'self_signed_tls_client_auth':
      // The connection is the proof; the body only names the client (RFC 8705 §2).
      return TlsClientAuth()
    case 'none':
      return material.clientId === undefined || (options.grant === 'jwt_bearer' && options.clientAuth === undefined) ? () => {} : None()
  }
}

/**
 * RFC 6749 §2.3.1: id and secret are form-encoded before base64. Only what the encoding requires is encoded, because
 * services that forget to decode are common, and `client-1` has to reach them as it is.
 */
function basic(secret: string, encoding: 'rfc6749' | 'raw'): ClientAuth {
  const encode = encoding === 'raw' ? (text: string) => text : (text: string) => new URLSearchParams([['', text]]).toString().slice(1)
  return function basic(_service, client, _body, headers) {
    headers.set('authorization', `Basic ${Buffer.from(`${encode(client.client_id)}:${encode(secret)}`).toString('base64')}`)
  }
}
