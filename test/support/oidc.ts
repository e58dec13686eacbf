import { generateKeyPairSync } from 'node:crypto'
import { createServer as createPlain, type RequestListener, type Server } from 'node:http'
import { createServer as createTls, type ServerOptions } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { Provider } from 'oidc-provider'

export type AuthorizationServer = {
  readonly issuer: string
  readonly tokenUrl: string
  /** The grant types of the token requests so far, with `!` and the error where they were refused. */
  readonly tokenRequests: string[]
  /** What the service itself says of a token (RFC 7662), asked by a client of its own. */
  introspect(token: string): Promise<Readonly<Record<string, unknown>>>
  /** A refresh token as a sign-in of that client would have brought it. */
  signIn(clientId: string): Promise<string>
  /** Refresh tokens used a second time. */
  readonly reused: string[]
  close(): Promise<void>
}

type Settings = {
  readonly clients: readonly Readonly<Record<string, unknown>>[]
  /** Serves HTTPS, and asks for client certificates. */
  readonly tls?: ServerOptions
  readonly dpopNonces?: boolean
  readonly lifetimeSeconds?: number
  /** Has pages where a person signs in. */
  readonly interactive?: boolean
}

const AUDITOR = { id: 'auditor', secret: 'auditor-secret' }

/** A real, independent authorization server (oidc-provider) on a free loopback port. */
export async function authorizationServer(settings: Settings): Promise<AuthorizationServer> {
  const handler: { current: RequestListener } = { current: (_request, response) => void response.end() }
  const listener: RequestListener = (request, response) => handler.current(request, response)
  const server: Server =
    settings.tls === undefined ? createPlain(listener) : createTls({ ...settings.tls, requestCert: true, rejectUnauthorized: false }, listener)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const issuer = `${settings.tls === undefined ? 'http' : 'https'}://localhost:${(server.address() as AddressInfo).port}`
  const provider = new Provider(issuer, configuration(settings))
  handler.current = provider.callback()

  const tokenRequests: string[] = []
  const reused: string[] = []
  provider.on('grant.success', (context) => tokenRequests.push(grantOf(context)))
  provider.on('grant.error', (context, error) => {
    tokenRequests.push(`${grantOf(context)} ! ${nameOf(error)}`)
    if (detailOf(error).includes('already used')) reused.push(detailOf(error))
  })

  return {
    issuer,
    tokenUrl: `${issuer}/token`,
    tokenRequests,
    reused,
    async introspect(token) {
      const authorization = `Basic ${Buffer.from(`${AUDITOR.id}:${AUDITOR.secret}`).toString('base64')}`
      const answer = await fetch(`${issuer}/token/introspection`, { method: 'POST', headers: { authorization }, body: new URLSearchParams({ token }) })
      return (await answer.json()) as Readonly<Record<string, unknown>>
    },
    async signIn(clientId) {
      const grant = new provider.Grant({ accountId: 'user-1', clientId })
      grant.addOIDCScope('openid offline_access')
      const grantId = await grant.save()
      const client = await provider.Client.find(clientId)
      return new provider.RefreshToken({ accountId: 'user-1', client, grantId, scope: 'openid offline_access', gty: 'authorization_code' }).save()
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      })
  }
}

function configuration(settings: Settings): Readonly<Record<string, unknown>> {
  return {
    clients: [
      ...settings.clients.map((client) => ({ redirect_uris: [], response_types: [], grant_types: ['client_credentials'], ...client })),
      { client_id: AUDITOR.id, client_secret: AUDITOR.secret, redirect_uris: [], response_types: [], grant_types: ['client_credentials'] }
    ],
    clientAuthMethods: [
      'client_secret_basic',
      'client_secret_post',
      'client_secret_jwt',
      'private_key_jwt',
      'tls_client_auth',
      'self_signed_tls_client_auth',
      'none'
    ],
    cookies: { keys: ['only for tests'] },
    jwks: { keys: [{ ...generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256' }] },
    findAccount: async (_context: unknown, id: string) => ({ accountId: id, claims: async () => ({ sub: id }) }),
    issueRefreshToken: async () => true,
    rotateRefreshToken: true,
    ttl: {
      ClientCredentials: settings.lifetimeSeconds ?? 600,
      AccessToken: settings.lifetimeSeconds ?? 600,
      RefreshToken: 86_400,
      Grant: 86_400,
      IdToken: 600
    },
    features: {
      devInteractions: { enabled: settings.interactive ?? false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true, allowedPolicy: async () => true },
      dPoP: { enabled: true, nonceSecret: Buffer.alloc(32, 1), requireNonce: () => settings.dpopNonces ?? false },
      mTLS: {
        enabled: true,
        certificateBoundAccessTokens: true,
        selfSignedTlsClientAuth: true,
        tlsClientAuth: true,
        getCertificate: (context: { req: { socket: TLSSocket } }) => context.req.socket.getPeerX509Certificate?.()?.toString(),
        certificateAuthorized: (context: { req: { socket: TLSSocket } }) => context.req.socket.authorized,
        certificateSubjectMatches: (context: { req: { socket: TLSSocket } }, _property: string, expected: string) =>
          context.req.socket.getPeerX509Certificate()?.subject === expected
      }
    }
  }
}

function grantOf(context: { readonly req: unknown }): string {
  const { oidc } = context as { oidc?: { params?: { grant_type?: string } } }
  return oidc?.params?.grant_type ?? 'unknown'
}

function nameOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function detailOf(error: unknown): string {
  return error instanceof Error && 'error_detail' in error ? String(error.error_detail) : ''
}
