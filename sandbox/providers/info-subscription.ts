import { bearer, requiredOnce } from '../bearer.ts'
import {
  empty,
  membersOf,
  textOf,
  json,
  type Answer,
  type ApiRequest,
  type Bench,
  type Call,
  type Caller,
  type Operation,
  type Provider,
  type ProviderPlan,
  type Rule
} from '../call.ts'
import { etagOf, isOutdated, representation } from '../representation.ts'
import { breaker } from '../rules/breaker.ts'
import { caching } from '../rules/caching.ts'
import { connections } from '../rules/connections.ts'
import { hygiene } from '../rules/hygiene.ts'
import { polling } from '../rules/polling.ts'
import { repeats } from '../rules/repeats.ts'
import { retries } from '../rules/retries.ts'
import { surface } from '../rules/surface.ts'
import { tokens as tokenRule } from '../rules/tokens.ts'
import { waits } from '../rules/waits.ts'
import { tokenEndpoint, type RegisteredClient } from '../token-endpoint.ts'
import { tokenBook, type Token } from '../tokens.ts'

export type InfoSubscriptionOptions = {
  readonly clients?: readonly RegisteredClient[]
  readonly tenants?: readonly string[]
  /** The audience GUID's scope; what a token request has to ask for. */
  readonly scope?: string
  readonly tokenLifetimeMs?: number
}

type Order = { id: string; subscriber: unknown; placedAt: number }

const AUDIENCE = '7bdcdd56-3ba6-4e6d-a841-db4816d7909d'
// an order is invisible, then under way, then there
const ORDER_VISIBLE_MS = 1000
const ORDER_DONE_MS = 8000
const MOST_STORED = 10_000

/** INFO-Subscription: client credentials at a B2C-like service, a tenant on every call, work that is done later. */
export function infoSubscription(options: InfoSubscriptionOptions = {}): ProviderPlan {
  const clients = options.clients ?? [{ id: 'info-demo', secret: 'info-secret' }]
  const tenants = options.tenants ?? ['e02d3360-8a5f-4115-8ef1-6d5f0c2b7a11']
  const scope = options.scope ?? 'https://sandbox.example/api/.default'
  const lifetimeMs = options.tokenLifetimeMs ?? 3_600_000

  return { name: 'info-subscription', open }

  function open(bench: Bench): Provider {
    const book = tokenBook()
    const rules = rulesOf(bench)
    const authenticateBearer = bearer(book, bench, { missing: 'IS-54', expired: 'IS-57', exposed: 'IS-10' })

    /** Client and tenant together decide (IS-06). */
    function authenticate(request: ApiRequest): Caller {
      const caller = authenticateBearer(request)
      const tenant = requiredOnce('S4-TenantId', 'IS-15', bench, request, caller.client)
      if (caller.refusal !== undefined) return caller
      if (tenant === undefined)
        return { ...caller, refusal: json(400, { message: 'S4-TenantId is required', errors: [{ field: 'S4-TenantId', message: 'required once' }] }) }
      return tenants.some((known) => known.toLowerCase() === tenant.toLowerCase()) ? caller : { ...caller, refusal: empty(403) }
    }

    return {
      rules,
      operations: operationsOf(bench),
      authenticate,
      failure,
      revokeTokens: () => book.revokeAll(),
      token: tokenEndpoint(
        {
          clients: () => clients,
          auth: ['client_secret_post', 'client_secret_basic'],
          audiences: () => [],
          foreign: ['S4-TenantId'],
          clauses: { form: 'IS-05', assertion: 'IS-05', exposed: 'IS-10', tenant: 'IS-15' },
          rules,
          grants: {
            client_credentials: {
              subject: (form) => form.get('scope') ?? '',
              issue(ask, form) {
                if (form.get('scope') !== scope) return { error: 'invalid_scope' }
                const token = book.issue(ask.client, ask.subject, ask.at, lifetimeMs)
                return { token, answer: b2cAnswer(token, bench) }
              }
            }
          }
        },
        bench
      )
    }
  }
}

/** Azure AD B2C's answer: times as numbers, its own names, no refresh token. */
function b2cAnswer(token: Token, bench: Bench): Record<string, unknown> {
  const nowS = Math.floor(bench.clock.wallNow() / 1000)
  const lifeS = Math.floor(token.lifetimeMs / 1000)
  return { token_type: 'Bearer', not_before: nowS, expires_in: lifeS, expires_on: nowS + lifeS, resource: AUDIENCE }
}

function rulesOf(bench: Bench): Rule[] {
  return [
    tokenRule({ early: 'IS-62', flood: 'IS-62', refused: 'IS-58', backoff: 'IS-60', floor: 0.9, ladderMs: [10_000, 30_000, 60_000] }, bench),
    waits({ retryAfter: 'IS-60', byStatus: { pauses: { 429: ['IS-60', 30_000], 503: ['IS-52', 120_000] }, probes: 1 } }, bench),
    retries({ spacing: 'IA-35', ladderMs: [10_000, 30_000, 60_000], silenceAfter: 5 }, bench),
    breaker({ clause: 'IA-39', failures: 5, cooldownMs: 60_000 }, bench),
    repeats({ duplicate: 'IS-18', stubborn: 'IS-32' }, bench),
    caching({ missing: 'IA-52', redundant: 'IA-53', missingMs: { 404: 10_000, 410: 60_000 } }, bench),
    polling({ clause: 'IS-37', firstMs: 200, mostPolls: 40 }, bench),
    surface({ unknown: 'IA-51', enumeration: { clause: 'IA-54', distinct: 500, windowMs: 3_600_000 } }, bench),
    hygiene({ identity: 'IS-12', foreign: 'IA-26', types: 'IS-23', secrets: 'IS-10' }, bench),
    connections({ held: 'IA-41', heldMs: 120_000, idle: 'IA-42', unused: 'RFC9112-9.3' }, bench)
  ]
}

function operationsOf(bench: Bench): Operation[] {
  const { clock } = bench
  const subscribers = new Map(
    Array.from({ length: 200 }, (_, index) => [String(index + 1), { id: String(index + 1), name: `Subscriber ${index + 1}`, gln: 7080001213916 + index }])
  )
  const orders = new Map<string, Order>()
  const startedAt = clock.wallNow()
  let lastId = 1000
  let lastLocation = 0

  /** `Location` comes relative and absolute by turns; both are right (RFC 9110 §10.2.2). */
  function locate(call: Call, path: string): readonly [string, string] {
    const relative = `/info-subscription/api${path}`
    return ['Location', lastLocation++ % 2 === 0 ? relative : `${call.origin}${relative}`]
  }
  function subscriber(call: Call, then: (id: string) => Answer): Answer {
    const id = call.params['id'] ?? ''
    return subscribers.has(id) ? then(id) : failure(404)
  }
  return [
    {
      method: 'GET',
      template: '/subscribers',
      cacheable: true,
      handle: (call) => representation(call, { items: [...subscribers.values()].slice(0, 20), total: subscribers.size }, { maxAgeS: 30 })
    },
    {
      method: 'GET',
      template: '/subscribers/{id}',
      cacheable: true,
      handle: (call) => subscriber(call, (id) => representation(call, subscribers.get(id), { maxAgeS: 60 }))
    },
    {
      method: 'POST',
      template: '/subscribers',
      handle(call) {
        const name = textOf(membersOf(call), 'name')
        if (name === undefined) return json(400, { message: 'The subscriber is not valid', errors: [{ field: 'name', message: 'Navn må fylles ut' }] })
        if (subscribers.size >= MOST_STORED) return failure(503)
        const id = String(++lastId)
        const created = { id, name, gln: 7080001213916 + lastId }
        subscribers.set(id, created)
        return json(201, created, [locate(call, `/subscribers/${id}`)])
      }
    },
    {
      method: 'PUT',
      template: '/subscribers/{id}',
      handle: (call) =>
        subscriber(call, (id) => {
          const known = subscribers.get(id)
          const name = textOf(membersOf(call), 'name')
          if (isOutdated(call, known)) return problem(412, 'The subscriber has changed')
          if (known === undefined || name === undefined) return problem(400, 'The subscriber is not valid', { name: ['is required'] })
          subscribers.set(id, { ...known, name })
          return empty(204, [['ETag', etagOf(subscribers.get(id))]])
        })
    },
    {
      method: 'PATCH',
      template: '/subscribers/{id}',
      handle: (call) => subscriber(call, () => empty(204))
    },
    {
      method: 'DELETE',
      template: '/subscribers/{id}',
      handle: (call) =>
        subscriber(call, (id) => {
          subscribers.delete(id)
          return empty(204)
        })
    },
    {
      method: 'GET',
      template: '/products',
      cacheable: true,
      handle: (call) =>
        representation(
          call,
          { items: ['Morning', 'Weekend', 'Digital'].map((name, id) => ({ id, name })) },
          { maxAgeS: 300, modifiedAt: startedAt - 86_400_000 }
        )
    },
    {
      method: 'POST',
      template: '/orders',
      handle(call) {
        const subscriber = membersOf(call).get('subscriber')
        if (subscriber === undefined) return problem(400, 'The order is not valid', { subscriber: ['is required'] })
        if (orders.size >= MOST_STORED) return failure(503)
        const id = `o${++lastId}`
        orders.set(id, { id, subscriber, placedAt: clock.now() })
        return empty(202, [locate(call, `/orders/${id}`)])
      }
    },
    {
      method: 'GET',
      template: '/orders/{id}',
      handle(call) {
        const order = orders.get(call.params['id'] ?? '')
        const age = order === undefined ? 0 : clock.now() - order.placedAt
        if (order === undefined || age < ORDER_VISIBLE_MS) return failure(404)
        const noStore = [['Cache-Control', 'no-store']] as const
        return age < ORDER_DONE_MS
          ? json(202, { status: 'Processing' }, noStore)
          : json(200, { id: order.id, subscriber: order.subscriber, status: 'Completed' }, noStore)
      }
    },
    {
      // on its way out; the weekday of its Sunset is wrong, as in the provider's own documentation
      method: 'GET',
      template: '/v1/invoices/{id}',
      cacheable: true,
      handle: (call) =>
        representation(
          call,
          { id: call.params['id'], amount: 129.5 },
          {
            maxAgeS: 30,
            fields: [
              ['api-supported-versions', '1, 2'],
              ['api-deprecated-versions', '1'],
              ['Deprecation', '@1767225600'],
              ['Sunset', 'Wed, 01 Jun 2099 00:00:00 GMT']
            ]
          }
        )
    },
    { method: 'GET', template: '/settings', handle: () => empty(403) }
  ]
}

/** What failures look like: no two alike, as in real life. */
function failure(status: number): Answer {
  switch (status) {
    case 401:
      return empty(401, [['WWW-Authenticate', 'Bearer error="invalid_token"']])
    case 403:
      return empty(403)
    case 500:
      // the trailing comma is the provider's own
      return {
        status,
        fields: [['Content-Type', 'application/json; charset=utf-8']],
        body: '{ "Code": "e77f0a12", "Message": "An unexpected error occurred", }'
      }
    case 502:
    case 503:
    case 504:
      return { status, fields: [['Content-Type', 'text/html']], body: '<html><body><h1>The service is unavailable.</h1></body></html>' }
    default:
      return status === 404 || status === 400
        ? { ...json(status, { message: 'Not possible', errors: [] }, [['X-Powered-By', 'ASP.NET']]), chunked: true }
        : problem(status, 'Not possible')
  }
}

/** RFC 9457, as newer endpoints have it. */
function problem(status: number, title: string, errors?: Record<string, string[]>): Answer {
  const body = JSON.stringify({ type: `https://sandbox.example/errors/${status}`, title, status, ...(errors === undefined ? {} : { errors }) })
  return { status, fields: [['Content-Type', 'application/problem+json']], body }
}
