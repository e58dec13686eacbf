import {
  anything,
  choice,
  date,
  duration,
  either,
  flag,
  integer,
  list,
  map,
  number,
  optional,
  secret,
  section,
  text,
  textLike,
  type Decoded
} from '../exchange/options.ts'

export const GRANTS = ['client_credentials', 'password', 'refresh_token', 'jwt_bearer', 'token_exchange', 'static', 'basic', 'mtls', 'none'] as const
export const CLIENT_AUTHS = [
  'client_secret_basic',
  'client_secret_post',
  'client_secret_jwt',
  'private_key_jwt',
  'tls_client_auth',
  'self_signed_tls_client_auth',
  'none'
] as const
export const ASSERTION_ALGORITHMS = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'HS256', 'HS384', 'HS512'] as const

export const assertionOptions = section(
  'The signed JWT that proves who the client is (RFC 7523): as client authentication, or as the grant itself with jwt_bearer',
  {
    alg: optional(
      choice('Signature algorithm; by default what the key is for: RS256, ES256/384/512 by curve, HS256 for a client secret', ASSERTION_ALGORITHMS)
    ),
    kid: optional(
      text('Key id: a literal, auto (the JWK’s own, else the thumbprint), thumbprint (RFC 7638) or none; auto unless a certificate field is included')
    ),
    typ: optional(text('Header typ, e.g. client-authentication+jwt; JWT by default, none leaves it out', 'JWT')),
    audience: optional(text('issuer, tokenUrl or a literal; the issuer where it is known, else the token URL')),
    audienceForm: choice('The aud claim as one string or as a list of one', ['string', 'array'], 'string'),
    lifetime: duration('From iat to exp, at most 120s', '60s'),
    backdate: duration('iat is this far in the past, against clocks that are behind', '0s'),
    include: list(
      'Further header fields and claims: x5t, x5t#S256 and x5c name the certificate, nbf repeats iat',
      choice('Field', ['x5t', 'x5t#S256', 'x5c', 'nbf']),
      []
    ),
    claims: map('Extra claims, e.g. resource, consumer_org', anything('Any JSON value'), {}),
    issuer: optional(text('The iss claim; the client id by default')),
    subject: optional(text('The sub claim; the client id by default for client authentication, absent by default with jwt_bearer'))
  },
  {}
)
export type AssertionOptions = Decoded<typeof assertionOptions>

const variant = section('What differs for one key', {
  clientId: optional(text('Client id')),
  clientSecret: optional(secret('Client secret')),
  username: optional(secret('User name')),
  password: optional(secret('Password')),
  value: optional(secret('Value of a static credential')),
  scope: optional(text('Scope'))
})

/** One credential (contract §2): which keys a grant needs is checked by `checkCredential`, not by the schema. */
export const credentialOptions = section('How Attache proves to a provider who it is', {
  grant: choice('How an authorization is obtained', GRANTS),

  tokenUrl: optional(text('Token endpoint; http: only on loopback')),
  issuer: optional(text('Issuer identifier: discovery (RFC 8414) where there is no tokenUrl, and the audience of assertions')),
  tokenHosts: list('Other hosts at which discovery may place the token endpoint', text('Host name'), []),
  ca: optional(secret('PEM certificates trusted at the token endpoint instead of the well-known authorities')),
  timeout: duration('Longest a token request may take', '30s'),

  clientId: optional(text('Client id')),
  clientSecret: optional(secret('Client secret')),
  clientAuth: optional(
    choice('Client authentication; by default client_secret_basic with a secret, private_key_jwt with a key, none otherwise and with jwt_bearer', CLIENT_AUTHS)
  ),
  basicEncoding: choice('How client_secret_basic encodes: rfc6749 (form-encoded first) or raw', ['rfc6749', 'raw'], 'rfc6749'),
  key: optional(secret('Private key: PEM, JWK or PKCS#12')),
  keyPassphrase: optional(secret('Passphrase of the private key')),
  certificate: optional(secret('PEM certificate, with chain, that belongs to the key')),
  expiresAt: optional(date('When a key without certificate ends')),
  assertion: assertionOptions,
  dpop: flag('Bind tokens to a key of our own and prove it on every call (RFC 9449)', false),

  username: optional(secret('User name')),
  password: optional(secret('Password')),
  refreshToken: optional(secret('First refresh token; not needed after a login')),
  refreshUse: choice('one_time: a refresh token is never sent twice; reusable: it may be', ['one_time', 'reusable'], 'one_time'),
  refreshGrace: duration('The provider accepts a one-time refresh token again within this time after its first use', '0s'),
  authorizationUrl: optional(text('Where attache login sends the browser; without it, discovery')),
  authorizationParams: map('Extra parameters of that address, e.g. prompt or ui_locales', text('Value'), {}),
  redirectUri: text(
    'Where the browser comes back to, as registered with the provider; on loopback, without a port at any free one',
    'http://127.0.0.1/callback'
  ),
  responseMode: choice('How it comes back: with a query, or with a form', ['query', 'form_post'], 'query'),
  stateSecret: optional(secret('Seals stored tokens where the credential has no secret of its own')),
  subjectToken: optional(secret('The token to exchange (RFC 8693)')),
  subjectTokenType: text('Its type', 'urn:ietf:params:oauth:token-type:access_token'),

  scope: optional(text('Scope')),
  params: map(
    'Extra token-request parameters, e.g. audience or resource',
    either('Value, or a list to repeat the parameter', text('Value'), list('Values', text('Value'))),
    {}
  ),
  paramLocation: choice('Where the parameters of a token request go; query only for services that insist', ['body', 'query'], 'body'),
  bodyFormat: choice('How the body of a token request is written', ['form', 'json'], 'form'),

  minUse: number('Share of the lifetime before any renewal, unless the provider rejects the token', { minimum: 0, maximum: 1 }, 0.95),
  margin: duration('Keeping warm renews this long before expiry, at most 5 % of the lifetime and never before minUse', '30s'),
  renew: choice('on_demand renews when a request needs it, keep_warm also while idle', ['on_demand', 'keep_warm'], 'on_demand'),
  defaultLifetime: duration('Lifetime assumed where the token service names none, or nonsense', '5m'),

  header: optional(textLike('Header field that bears a static credential', "^[!#$%&'*+\\-.^_`|~0-9A-Za-z]+$")),
  query: optional(textLike('Query parameter that bears a static credential, for providers that insist', '^[^&=#\\s]+$')),
  value: optional(secret('Value of a static credential')),
  prefix: text('Put before the value in the header field, e.g. “ApiKey ”', ''),

  perKey: optional(textLike('One token per organisation: path[N] is the N-th path segment, from 0', '^path\\[\\d{1,2}\\]$')),
  variants: map('What differs by key, for perKey; with it only the keys listed here are served', variant, {}),
  maxKeys: integer('Keys held at once', { minimum: 1, maximum: 100_000 }, 1000)
})
export type CredentialOptions = Decoded<typeof credentialOptions>
