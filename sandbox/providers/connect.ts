import { bearer } from '../bearer.ts'
import { codeFlow } from '../code-flow.ts'
import {
  empty,
  field,
  json,
  type Answer,
  type ApiRequest,
  type Bench,
  type Call,
  type Caller,
  type Operation,
  type Provider,
  type ProviderPlan,
  type Rule,
  type TokenAsk
} from '../call.ts'
import { refreshBook, type Refreshed } from '../refresh.ts'
import { representation } from '../representation.ts'
import { breaker } from '../rules/breaker.ts'
import { caching } from '../rules/caching.ts'
import { connections } from '../rules/connections.ts'
import { hygiene } from '../rules/hygiene.ts'
import { rates, type Rates } from '../rules/rates.ts'
import { repeats } from '../rules/repeats.ts'
import { retries } from '../rules/retries.ts'
import { surface } from '../rules/surface.ts'
import { tokens as tokenRule } from '../rules/tokens.ts'
import { waits } from '../rules/waits.ts'
import { tokenEndpoint, type Issued, type OAuthError } from '../token-endpoint.ts'
import { tokenBook } from '../tokens.ts'

export type ConnectOptions = { readonly client?: { readonly id: string; readonly secret: string }; readonly refreshToken?: string }

const HOUR_MS = 3_600_000
const MACHINE = 'client'
const PER_MINUTE = 2000

/** Mediaconnect Connect: one token for `/v1/client/**`, a user's token for the rest, two rate windows at once, XML unless asked. */
export function connect(options: ConnectOptions = {}): ProviderPlan {
  const client = options.client ?? { id: 'connect-demo', secret: 'connect-secret' }
  return { name: 'connect', open }

  function open(bench: Bench): Provider {
    const book = tokenBook()
    const refreshes = refreshBook(
      { mode: 'reuse', idleMs: 30 * 24 * HOUR_MS, maxMs: 365 * 24 * HOUR_MS, clauses: { reused: 'MC-41', expired: 'MC-41' } },
      bench
    )
    refreshes.seed(options.refreshToken ?? 'connect-first-refresh-token', client.id, 'user-1', '', bench.clock.now())
    const flow = codeFlow({ clientId: client.id, scopes: ['openid', 'offline_access', ''], clauses: { scope: 'MC-41', proof: 'RFC7636-4.3' } }, bench)
    const both = rates(
      {
        clause: 'MC-40',
        windows: [
          { count: 100, windowMs: 1000 },
          { count: PER_MINUTE, windowMs: 60_000 }
        ]
      },
      bench
    )
    const rules: Rule[] = [
      tokenRule({ early: 'MC-41', flood: 'MC-41', refused: 'MC-41', backoff: 'IA-35', floor: 0.9, ladderMs: [10_000, 30_000, 60_000] }, bench),
      waits({ retryAfter: 'MC-40', byStatus: { pauses: { 429: ['MC-40', 1000] }, probes: 0 } }, bench),
      retries({ spacing: 'IA-35', ladderMs: [10_000, 30_000, 60_000], silenceAfter: 5 }, bench),
      breaker({ clause: 'IA-39', failures: 5, cooldownMs: 60_000 }, bench),
      repeats({ duplicate: 'MC-03', stubborn: 'MC-03' }, bench),
      caching({ missing: 'IA-52', redundant: 'IA-53', missingMs: { 404: 30_000 } }, bench),
      surface({ unknown: 'MC-18', enumeration: { clause: 'IA-54', distinct: 500, windowMs: HOUR_MS } }, bench),
      both,
      hygiene({ identity: 'MC-30', foreign: 'IA-26', types: 'MC-44', secrets: 'IA-04' }, bench),
      connections({ held: 'IA-41', heldMs: 120_000, idle: 'IA-42', unused: 'RFC9112-9.3' }, bench)
    ]
    const authenticateBearer = bearer(book, bench, { missing: 'MC-02', expired: 'MC-41', exposed: 'MC-43' })

    function answer(ask: TokenAsk, refreshed: Refreshed | undefined): Issued {
      const token = book.issue(ask.client, ask.subject, ask.at, 12 * HOUR_MS)
      if (refreshed !== undefined) refreshed.login.last = token
      return { token, answer: { token_type: 'bearer', expires_in: 43_200, ...(refreshed === undefined ? {} : { refresh_token: refreshed.value }) } }
    }

    /** The path decides which kind of token it takes. */
    function authenticate(request: ApiRequest): Caller {
      const caller = authenticateBearer(request)
      if (caller.token === undefined) return caller
      const isMachine = request.path.startsWith('/v1/client/')
      if (isMachine === (caller.token.subject === MACHINE)) return caller
      bench.note('MC-02', 'S1', caller.client, isMachine ? 'a user’s token on a client path' : 'a client token on a user’s path')
      return { ...caller, refusal: json(403, { exceptionType: 'AccessDenied', errorMessage: 'wrong kind of token' }) }
    }

    return {
      rules,
      authenticate,
      failure,
      operations: operationsOf().map((operation) => ({ ...operation, handle: (call) => limited(call, both, operation) })),
      revokeTokens: () => book.revokeAll(),
      extra: (path, request) => (request.method === 'GET' && path === '/authorize' ? flow.authorize(request) : undefined),
      token: tokenEndpoint(
        {
          clients: () => [client],
          auth: ['client_secret_basic', 'client_secret_post'],
          audiences: () => [],
          foreign: [],
          clauses: { form: 'MC-43', assertion: 'MC-43', exposed: 'MC-43' },
          rules,
          grants: {
            client_credentials: { subject: () => MACHINE, issue: (ask) => answer(ask, undefined) },
            authorization_code: {
              subject: () => 'user-1',
              issue(ask, form): Issued | OAuthError {
                const consent = flow.redeem(form, ask.at)
                return consent === undefined ? { error: 'invalid_grant' } : answer(ask, refreshes.begin(ask.client, consent.user, consent.scope, ask.at))
              }
            },
            refresh_token: {
              subject: (form) => refreshes.find(form.get('refresh_token') ?? '')?.user ?? 'unknown',
              issue(ask, form): Issued | OAuthError {
                const refreshed = refreshes.exchange(form.get('refresh_token') ?? '', ask.client, ask.at)
                return refreshed === undefined ? { error: 'invalid_grant' } : answer(ask, refreshed)
              }
            }
          }
        },
        bench
      )
    }
  }
}

/** Every answer says how much is left; over the limit there is no other answer. */
function limited(call: Call, rule: Rates, operation: Operation): Answer {
  const over = rule.overMs(call)
  const answer = over === undefined ? operation.handle(call) : failure(429)
  const left: readonly (readonly [string, string])[] = [
    ['X-RateLimit-Remaining', String(Math.max(0, PER_MINUTE - rule.used(call, 60_000)))],
    ['X-RateLimit-Reset', String(over === undefined ? 60 : Math.max(1, Math.ceil(over / 1000)))],
    ['X-Mediaconnect-Api-Version', '1.14.2']
  ]
  return { ...answer, fields: [...answer.fields, ...left] }
}

function operationsOf(): Operation[] {
  const customer = (id: string): Record<string, unknown> => ({
    customerNumber: id,
    created: 1_735_689_600_123,
    accessType: 'FullAccess',
    gln: 7_080_001_213_916
  })
  return [
    {
      method: 'GET',
      template: '/v1/client/customer/{id}',
      cacheable: true,
      handle(call) {
        const id = call.params['id'] ?? ''
        if (id === '0') return failure(404)
        // XML unless JSON is asked for by name
        if (field(call.fields, 'accept')?.includes('application/json') !== true)
          return {
            status: 200,
            fields: [
              ['Content-Type', 'application/xml'],
              ['Cache-Control', 'private, max-age=60']
            ],
            body: `<customer number="${id.replaceAll(/\W/g, '')}"/>`
          }
        return representation(call, customer(id), { maxAgeS: 60 })
      }
    },
    { method: 'GET', template: '/v1/customer', cacheable: true, handle: (call) => representation(call, customer('42'), { maxAgeS: 60 }) },
    { method: 'POST', template: '/v1/client/order', handle: () => json(200, { orderId: 'o-1' }) },
    { method: 'POST', template: '/v1/client/message', handle: () => empty(204) },
    {
      method: 'GET',
      template: '/v1/client/coupon/{id}',
      cacheable: true,
      handle: (call) =>
        representation(
          call,
          { id: call.params['id'] },
          {
            maxAgeS: 60,
            fields: [
              ['Deprecation', '@1767225600'],
              ['Sunset', 'Tue, 30 Jun 2099 00:00:00 UTC']
            ]
          }
        )
    }
  ]
}

function failure(status: number): Answer {
  return json(status, { exceptionType: status === 404 ? 'EntityNotFound' : 'GeneralError', errorMessage: 'Feil' })
}
