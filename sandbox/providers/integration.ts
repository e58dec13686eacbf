import { isPrivate, registerKey, type RegisteredKey } from '../assertion.ts'
import { bearer } from '../bearer.ts'
import { empty, json, type Answer, type Bench, type Operation, type Provider, type ProviderPlan, type Rule, type TokenRequest } from '../call.ts'
import { representation } from '../representation.ts'
import { breaker } from '../rules/breaker.ts'
import { caching } from '../rules/caching.ts'
import { connections } from '../rules/connections.ts'
import { hygiene } from '../rules/hygiene.ts'
import { leases } from '../rules/leases.ts'
import { rates } from '../rules/rates.ts'
import { repeats } from '../rules/repeats.ts'
import { retries } from '../rules/retries.ts'
import { surface } from '../rules/surface.ts'
import { tokens as tokenRule } from '../rules/tokens.ts'
import { waits } from '../rules/waits.ts'
import { tokenEndpoint } from '../token-endpoint.ts'
import { tokenBook } from '../tokens.ts'

export type IntegrationOptions = {
  readonly clientId?: string
  /** Public keys the partner has sent: PEM or JWK. More can be sent to `POST /integration/keys`. */
  readonly keys?: readonly string[]
  readonly tokenLifetimeMs?: number
  /** The agreed volume. */
  readonly perMinute?: number
  /** Services that have not moved on from RFC 7523 take the token URL as audience too. Default no. */
  readonly acceptTokenUrlAudience?: boolean
}

const LONGEST_KEY_MS = 730 * 86_400_000

/** The Integration agreement: a certificate proves the client, a token is used for most of its life, errors are waited out. */
export function integration(options: IntegrationOptions = {}): ProviderPlan {
  const { clientId = 'integration-demo', tokenLifetimeMs = 3_600_000, perMinute = 600, acceptTokenUrlAudience = false } = options

  return { name: 'integration', open }

  function open(bench: Bench): Provider {
    const book = tokenBook()
    const failure = failures()
    const keys: RegisteredKey[] = (options.keys ?? []).map(registerKey)
    const volume = rates({ clause: 'IA-48', windows: [{ count: perMinute, windowMs: 60_000 }] }, bench)
    const rules: Rule[] = [
      tokenRule({ early: 'IA-13', flood: 'IA-14', refused: 'IA-05', backoff: 'IA-35', floor: 0.7, ladderMs: [10_000, 30_000, 60_000] }, bench),
      waits({ retryAfter: 'IA-48' }, bench),
      retries({ spacing: 'IA-35', attempts: { clause: 'IA-34', least: 3 }, ladderMs: [10_000, 30_000, 60_000], silenceAfter: 5 }, bench),
      breaker({ clause: 'IA-39', failures: 5, cooldownMs: 60_000 }, bench),
      repeats({ duplicate: 'IA-38', stubborn: 'IA-50' }, bench),
      caching({ missing: 'IA-52', redundant: 'IA-53', missingMs: { 404: 60_000, 410: 60_000 } }, bench),
      surface({ unknown: 'IA-51', enumeration: { clause: 'IA-54', distinct: 500, windowMs: 3_600_000 } }, bench),
      leases({ clause: 'IA-15', template: '/connection-string', validMs: 3_600_000 }, bench),
      volume,
      hygiene({ identity: 'IA-50', foreign: 'IA-26', types: 'IA-50', secrets: 'IA-04' }, bench),
      connections({ held: 'IA-41', heldMs: 120_000, idle: 'IA-42', unused: 'RFC9112-9.3' }, bench)
    ]
    const issuerOf = (request: TokenRequest): string => `${request.origin}/integration`

    return {
      rules,
      operations: operationsOf(bench, failure).map((operation) => ({
        ...operation,
        handle: (call) => throttled(failure, volume.overMs(call)) ?? operation.handle(call)
      })),
      authenticate: bearer(book, bench, { missing: 'IA-10', expired: 'IA-11', exposed: 'IA-02' }),
      failure,
      revokeTokens: () => book.revokeAll(),
      extra: (path, request) =>
        metadata(path, issuerOf(request)) ?? keyDesk(path, request, keys, (clause, detail) => bench.note(clause, 'S1', clientId, detail)),
      token: tokenEndpoint(
        {
          clients: () => [{ id: clientId, keys }],
          auth: ['private_key_jwt'],
          audiences: (request) => [issuerOf(request), ...(acceptTokenUrlAudience ? [`${issuerOf(request)}/token`] : [])],
          foreign: [],
          clauses: { form: 'IA-10', assertion: 'IA-10', exposed: 'IA-02', outlived: 'IA-06' },
          rules,
          grants: {
            client_credentials: {
              subject: (form) => form.get('scope') ?? '',
              issue(ask) {
                const token = book.issue(ask.client, ask.subject, ask.at, tokenLifetimeMs)
                return { token, answer: { token_type: 'Bearer', expires_in: Math.floor(tokenLifetimeMs / 1000), scope: ask.subject } }
              }
            }
          }
        },
        bench
      )
    }
  }
}

/** RFC 8414 and OpenID discovery. */
function metadata(path: string, issuer: string): Answer | undefined {
  if (path !== '/.well-known/openid-configuration' && path !== '/.well-known/oauth-authorization-server') return undefined
  return json(200, {
    issuer,
    token_endpoint: `${issuer}/token`,
    grant_types_supported: ['client_credentials'],
    token_endpoint_auth_methods_supported: ['private_key_jwt'],
    token_endpoint_auth_signing_alg_values_supported: ['RS256', 'PS256', 'ES256', 'EdDSA'],
    response_types_supported: ['token'],
    subject_types_supported: ['public'],
    jwks_uri: `${issuer}/jwks`
  })
}

/** Where the partner's public keys arrive, and where a lost one is locked: `POST /keys` with PEM or JWK, `DELETE /keys/KID`. */
function keyDesk(path: string, request: TokenRequest, keys: RegisteredKey[], note: (clause: string, detail: string) => void): Answer | undefined {
  if (request.method === 'GET' && path === '/jwks') return json(200, { keys: [] })
  if (request.method === 'POST' && path === '/keys') {
    const text = request.body.toString()
    if (isPrivate(text)) note('IA-04', 'a private key sent as if it were the public half')
    try {
      const key = registerKey(text)
      if (key.validity !== undefined && key.validity.to - key.validity.from > LONGEST_KEY_MS) {
        note('IA-09', 'a certificate that lasts longer than two years')
        return json(400, { error: 'a key lasts two years at most' })
      }
      if (keys.length < 100) keys.push(key)
      return json(201, { kid: key.kid })
    } catch (error) {
      return json(400, { error: error instanceof Error ? error.message : String(error) })
    }
  }
  const kid = request.method === 'DELETE' ? /^\/keys\/([\w-]+)$/.exec(path)?.[1] : undefined
  const index = keys.findIndex((key) => key.kid === kid)
  if (index === -1) return undefined
  keys.splice(index, 1)
  return empty(204)
}

function throttled(failure: Provider['failure'], overMs: number | undefined): Answer | undefined {
  if (overMs === undefined) return undefined
  const answer = failure(429)
  return { ...answer, fields: [...answer.fields, ['Retry-After', String(Math.max(1, Math.ceil(overMs / 1000)))]] }
}

function operationsOf(bench: Bench, failure: Provider['failure']): Operation[] {
  const customers = new Map(Array.from({ length: 300 }, (_, index) => [`c${index + 1}`, { id: `c${index + 1}`, level: 'gold', points: 10 * index }]))
  let receipts = 0
  return [
    {
      method: 'GET',
      template: '/customers/{id}',
      cacheable: true,
      handle(call) {
        const customer = customers.get(call.params['id'] ?? '')
        return customer === undefined ? failure(404) : representation(call, customer, { maxAgeS: 60, fields: [['X-Added-Last-Night', 'yes']] })
      }
    },
    {
      method: 'PUT',
      template: '/customers/{id}',
      handle(call) {
        const id = call.params['id'] ?? ''
        const known = customers.get(id)
        if (known === undefined) return failure(404)
        customers.set(id, { ...known, points: known.points + 1 })
        return empty(204)
      }
    },
    {
      method: 'GET',
      template: '/campaigns',
      cacheable: true,
      handle: (call) =>
        representation(call, { campaigns: ['Black Friday', 'Christmas'].map((name, id) => ({ id, name, kind: 'NEW_KIND_SINCE_TODAY' })) }, { maxAgeS: 300 })
    },
    { method: 'POST', template: '/receipts', handle: () => json(201, { number: ++receipts }, [['Location', `/integration/api/receipts/r${receipts}`]]) },
    { method: 'GET', template: '/receipts/{id}', handle: (call) => json(200, { id: call.params['id'] }, [['Cache-Control', 'no-store']]) },
    { method: 'POST', template: '/receipts/search', repeatable: true, handle: () => json(200, { found: receipts }) },
    { method: 'DELETE', template: '/coupons/{id}', handle: () => empty(204) },
    { method: 'GET', template: '/changes', handle: () => json(200, { changes: [], next: 'w1' }, [['Cache-Control', 'no-store']]) },
    {
      // a secret on loan: good for an hour, so worth asking for once an hour
      method: 'GET',
      template: '/connection-string',
      cacheable: true,
      handle: () =>
        json(
          200,
          { connectionString: `Endpoint=sb://sandbox.example/;SharedAccessSignature=sr%3dq%26se%3d${Math.floor(bench.clock.wallNow() / 1000) + 3600}` },
          [['Cache-Control', 'private, max-age=3600']]
        )
    }
  ]
}

/** RFC 9457 with text that changes from one failure to the next, to punish matching on it. */
function failures(): (status: number) => Answer {
  const words = ['Something went wrong', 'Der opstod en fejl', 'Noe gikk galt', '429 rate limit (not really)']
  let next = 0
  return function failure(status) {
    const body = JSON.stringify({ title: words[next++ % words.length], type: 'about:blank', status, code: `E${status}` })
    return { status, fields: [['Content-Type', 'application/problem+json']], body }
  }
}
