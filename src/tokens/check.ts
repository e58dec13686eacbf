import { isLoopback } from '../http/loopback.ts'
import type { CredentialOptions } from './options.ts'

const MAX_ASSERTION_MS = 120_000

/**
 * What is wrong with a credential that no schema can say, because it depends on the grant: one finding each, naming the
 * keys and the way out. Reads no secret and sends nothing; keys and certificates are looked into when they are loaded.
 */
export function checkCredential(_name: string, options: CredentialOptions): string[] {
  return [...grantFindings(options), ...keyFindings(options)]
}

/** Whether the grant asks a token service for tokens. */
export function wantsToken(options: Pick<CredentialOptions, 'grant'>): boolean {
  return !['static', 'basic', 'mtls', 'none'].includes(options.grant)
}

/** The client authentication in force, with the default that the other keys suggest. */
export function clientAuthOf(options: CredentialOptions): NonNullable<CredentialOptions['clientAuth']> {
  if (options.clientAuth !== undefined) return options.clientAuth
  // With jwt_bearer the assertion is the grant; it needs no second proof (RFC 7523 §3.1).
  if (options.grant === 'jwt_bearer') return 'none'
  if (hasSecret(options)) return 'client_secret_basic'
  return options.key === undefined ? 'none' : 'private_key_jwt'
}

function grantFindings(options: CredentialOptions): string[] {
  const { grant } = options
  if (grant === 'none') return []
  if (grant === 'static') return staticFindings(options)
  if (grant === 'basic') return [...needs(options, 'username'), ...needs(options, 'password')]
  if (grant === 'mtls') return [...needs(options, 'key'), ...needsCertificate(options)]

  const findings = [...endpointFindings(options), ...clientFindings(options), ...assertionFindings(options)]
  if (grant === 'password') findings.push(...needs(options, 'username'), ...needs(options, 'password'))
  if (grant === 'jwt_bearer') findings.push(...needs(options, 'key'))
  if (grant === 'token_exchange') findings.push(...needs(options, 'subjectToken'))
  if (grant === 'refresh_token' && !hasSecret(options) && !options.key && !options.refreshToken && !options.stateSecret) {
    findings.push('needs clientSecret, key, refreshToken or stateSecret: stored tokens are sealed with one of them')
  }
  if (options.paramLocation === 'query' && options.bodyFormat === 'json') findings.push('paramLocation query leaves no body for bodyFormat json')
  return findings
}

function staticFindings(options: CredentialOptions): string[] {
  const findings = needs(options, 'value')
  if (options.header === undefined && options.query === undefined) findings.push('needs header or query: where the value goes')
  if (options.header !== undefined && options.query !== undefined) findings.push('has both header and query, the value goes in one of them')
  if (options.query !== undefined && options.prefix !== '') findings.push('prefix goes with header, not with query')
  return findings
}

function endpointFindings(options: CredentialOptions): string[] {
  const findings: string[] = []
  if (options.tokenUrl === undefined && options.issuer === undefined) findings.push('needs tokenUrl or issuer')
  for (const key of ['tokenUrl', 'issuer', 'authorizationUrl'] as const) {
    const url = options[key]
    // The issuer is only an identifier where the token URL is given: Maskinporten's ends in a slash, others are no URL at all.
    if (url === undefined || (key === 'issuer' && options.tokenUrl !== undefined)) continue
    findings.push(...urlFindings(key, url))
  }
  if (!isRedirect(options.redirectUri)) findings.push('redirectUri must be http: on loopback with a path, e.g. http://127.0.0.1:7602/callback (RFC 8252 §7.3)')
  return findings
}

function isRedirect(text: string): boolean {
  const url = URL.parse(text)
  return url !== null && /^http:\/\/[^/?#@]+\/[^#]*$/.test(text) && isLoopback(url.hostname)
}

function urlFindings(key: string, text: string): string[] {
  const url = URL.parse(text)
  if (url === null) return [`${key} is not a URL`]
  if (url.protocol !== 'https:' && url.protocol !== 'http:') return [`${key} must begin with https:`]
  if (url.protocol === 'http:' && !isLoopback(url.hostname)) return [`${key} must begin with https: (http: is for loopback only)`]
  if (url.username !== '' || url.password !== '') return [`${key} must not contain a user or password`]
  if (url.hash !== '') return [`${key} must not contain a fragment`]
  return []
}

function clientFindings(options: CredentialOptions): string[] {
  const auth = clientAuthOf(options)
  const findings: string[] = []
  if (options.grant === 'jwt_bearer' && options.clientAuth === undefined) {
    if (options.clientId === undefined && options.assertion.issuer === undefined) findings.push('needs clientId or assertion.issuer')
  } else {
    findings.push(...needs(options, 'clientId'))
  }
  if (auth.startsWith('client_secret_') && !hasSecret(options)) findings.push(`needs clientSecret for ${auth}`)
  if (auth === 'private_key_jwt' && options.key === undefined) findings.push('needs key for private_key_jwt')
  if (auth.endsWith('tls_client_auth')) {
    if (options.key === undefined) findings.push(`needs key for ${auth}`)
    findings.push(...needsCertificate(options))
  }
  if (options.grant === 'client_credentials' && auth === 'none')
    findings.push('needs clientSecret or key: client_credentials proves who the client is (RFC 6749 §4.4)')
  return findings
}

function assertionFindings(options: CredentialOptions): string[] {
  const { alg, lifetime, include } = options.assertion
  const findings: string[] = []
  if (lifetime > MAX_ASSERTION_MS) findings.push('assertion.lifetime must be at most 120s')
  if (lifetime < 1000) findings.push('assertion.lifetime must be at least 1s')
  const symmetric = clientAuthOf(options) === 'client_secret_jwt'
  if (alg !== undefined && options.grant !== 'jwt_bearer' && alg.startsWith('HS') !== symmetric) {
    findings.push(symmetric ? 'assertion.alg must be HS256, HS384 or HS512 for client_secret_jwt' : 'assertion.alg HS… is for client_secret_jwt')
  }
  if (include.some((field) => field !== 'nbf')) findings.push(...needsCertificate(options))
  return findings
}

function keyFindings(options: CredentialOptions): string[] {
  const findings: string[] = []
  if (Object.keys(options.variants).length > 0 && options.perKey === undefined) findings.push('variants needs perKey: where the key is found')
  if (options.perKey !== undefined && ['basic', 'mtls', 'none'].includes(options.grant) && Object.keys(options.variants).length === 0) {
    findings.push(`perKey needs variants with grant ${options.grant}`)
  }
  return findings
}

// PKCS#12 brings its certificate along, and only the file's content tells which format it is.
function needsCertificate(options: CredentialOptions): string[] {
  return options.certificate === undefined && !isPossiblyPkcs12(options) ? ['needs certificate, or a key in PKCS#12 that contains it'] : []
}

function isPossiblyPkcs12(options: CredentialOptions): boolean {
  return options.key !== undefined && /\.(p12|pfx)$|^\$\{/i.test(options.key.reference)
}

function hasSecret(options: CredentialOptions): boolean {
  return options.clientSecret !== undefined || allVariantsHave(options, 'clientSecret')
}

function needs(options: CredentialOptions, key: 'clientId' | 'username' | 'password' | 'key' | 'subjectToken' | 'value'): string[] {
  if (options[key] !== undefined) return []
  if (key !== 'key' && key !== 'subjectToken' && allVariantsHave(options, key)) return []
  return [`needs ${key} for grant ${options.grant}`]
}

function allVariantsHave(options: CredentialOptions, key: 'clientId' | 'clientSecret' | 'username' | 'password' | 'value'): boolean {
  const variants = Object.values(options.variants)
  return variants.length > 0 && variants.every((variant) => variant[key] !== undefined)
}
