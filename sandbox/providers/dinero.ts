import { bearer } from '../bearer.ts'
import { codeFlow } from '../code-flow.ts'
import {
  empty,
  field,
  json,
  membersOf,
  textOf,
  type Answer,
  type Bench,
  type Call,
  type Operation,
  type Provider,
  type ProviderPlan,
  type Rule,
  type TokenAsk
} from '../call.ts'
import { refreshBook, type Refreshed, type RefreshOptions } from '../refresh.ts'
import { representation } from '../representation.ts'
import { breaker } from '../rules/breaker.ts'
import { budget } from '../rules/budget.ts'
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

export type DineroOptions = {
  readonly client?: { readonly id: string; readonly secret: string }
  /** API keys of personal integrations: organisation by key. */
  readonly apiKeys?: Readonly<Record<string, string>>
  /** A refresh token handed over at the consent. */
  readonly refreshToken?: string
  readonly refresh?: Partial<Pick<RefreshOptions, 'mode' | 'graceMs' | 'idleMs' | 'maxMs'>>
}

const HOUR_MS = 3_600_000
const YEAR_MS = 365 * 24 * HOUR_MS
const SCOPES = ['dineropublicapi:read', 'dineropublicapi:write', 'offline_access']
const LARGEST_FILE_BYTES = 6_000_000
const MOST_SMS_KEPT = 1000
// an organisation without the subscription that gives API access
const WITHOUT_PRO = '100003'

/** Dinero: consent of a user and rotating refresh tokens (or an API key), 100 calls a minute per organisation, paid SMS. */
export function dinero(options: DineroOptions = {}): ProviderPlan {
  const client = options.client ?? { id: 'isv_demo', secret: 'dinero-secret' }
  const apiKeys = options.apiKeys ?? { 'dinero-api-key': '100001' }
  return { name: 'dinero', open }

  function open(bench: Bench): Provider {
    const book = tokenBook()
    const refreshes = refreshBook(
      { mode: 'one-time', idleMs: YEAR_MS, maxMs: 10 * YEAR_MS, clauses: { reused: 'DI-12', expired: 'DI-12' }, ...options.refresh },
      bench
    )
    refreshes.seed(options.refreshToken ?? 'dinero-first-refresh-token', client.id, 'user-1', SCOPES.join(' '), bench.clock.now())
    const flow = codeFlow({ clientId: client.id, scopes: SCOPES, clauses: { scope: 'DI-09', proof: 'RFC7636-4.3' } }, bench)
    const sms: { at: number; receiver: string }[] = []
    const perOrganisation = rates({ clause: 'DI-03', windows: [{ count: 100, windowMs: 60_000 }], keyOf: organisationOf }, bench)
    const rules: Rule[] = [
      tokenRule({ early: 'DI-12', flood: 'DI-12', refused: 'DI-14', backoff: 'IA-35', floor: 0.9, ladderMs: [10_000, 30_000, 60_000] }, bench),
      waits({ retryAfter: 'DI-23', byStatus: { pauses: { 429: ['DI-23', 60_000] }, probes: 0 }, keyOf: organisationOf }, bench),
      retries({ spacing: 'IA-35', ladderMs: [10_000, 30_000, 60_000], silenceAfter: 5 }, bench),
      breaker({ clause: 'IA-39', failures: 5, cooldownMs: 60_000 }, bench),
      repeats({ duplicate: 'DI-21', stubborn: 'DI-26' }, bench),
      caching({ missing: 'DI-02', redundant: 'DI-02', missingMs: {} }, bench),
      surface({ unknown: 'IA-51', enumeration: { clause: 'DI-02', distinct: 500, windowMs: HOUR_MS } }, bench),
      budget({ clause: 'DI-14', statuses: [400, 401, 403], count: 20, windowMs: 60_000, keyOf: organisationOf }, bench),
      perOrganisation,
      hygiene({ identity: 'DI-07', foreign: 'IA-26', types: 'DI-15', secrets: 'IA-04' }, bench),
      connections({ held: 'IA-41', heldMs: 120_000, idle: 'IA-42', unused: 'RFC9112-9.3' }, bench)
    ]

    function answer(ask: TokenAsk, scope: string, refreshed: Refreshed | undefined): Issued {
      const token = book.issue(ask.client, ask.subject, ask.at, HOUR_MS)
      if (refreshed !== undefined) refreshed.login.last = token
      return { token, answer: { token_type: 'Bearer', expires_in: 3600, scope, ...(refreshed === undefined ? {} : { refresh_token: refreshed.value }) } }
    }

    return {
      rules,
      operations: operationsOf(bench, sms).map((operation) => ({
        ...operation,
        handle: (call) => turnedDown(call, perOrganisation) ?? operation.handle(call)
      })),
      authenticate: bearer(book, bench, { missing: 'DI-11', expired: 'DI-12', exposed: 'DI-11' }),
      failure,
      revokeTokens: () => book.revokeAll(),
      extra(path, request) {
        if (request.method === 'GET' && path === '/authorize') return flow.authorize(request)
        // what the quarterly invoice will say
        if (request.method === 'GET' && path === '/sms') return json(200, { count: sms.length, kroner: sms.length, sent: sms })
        return undefined
      },
      token: tokenEndpoint(
        {
          clients: () => [client],
          auth: ['client_secret_post', 'client_secret_basic'],
          audiences: () => [],
          foreign: [],
          clauses: { form: 'DI-12', assertion: 'DI-12', exposed: 'DI-11' },
          rules,
          grants: {
            authorization_code: {
              subject: () => 'user-1',
              issue(ask, form): Issued | OAuthError {
                const consent = flow.redeem(form, ask.at)
                if (consent === undefined) return { error: 'invalid_grant' }
                return answer(ask, consent.scope, refreshes.begin(ask.client, consent.user, consent.scope, ask.at))
              }
            },
            refresh_token: {
              subject: (form) => refreshes.find(form.get('refresh_token') ?? '')?.user ?? 'unknown',
              issue(ask, form): Issued | OAuthError {
                const refreshed = refreshes.exchange(form.get('refresh_token') ?? '', ask.client, ask.at)
                return refreshed === undefined ? { error: 'invalid_grant' } : answer(ask, refreshed.login.scope, refreshed)
              }
            },
            password: {
              // the API key is user and password, and stands for one organisation
              subject: (form) => apiKeys[form.get('username') ?? ''] ?? 'unknown',
              issue(ask, form): Issued | OAuthError {
                const key = form.get('username') ?? ''
                if (apiKeys[key] === undefined || form.get('password') !== key) return { error: 'invalid_grant' }
                return answer(ask, 'read write', undefined)
              }
            }
          }
        },
        bench
      )
    }
  }
}

/** `/v1/ORG/…`; what is not about one organisation shares a key. */
function organisationOf(call: Call): string {
  return /^\/v[\d.]+\/(\d+)\//.exec(call.path)?.[1] ?? ''
}

function turnedDown(call: Call, rule: Rates): Answer | undefined {
  // the wait is not told: everybody knows it is a minute
  if (rule.overMs(call) !== undefined)
    return { status: 429, fields: [['Content-Type', 'text/plain']], body: 'API calls quota exceeded! maximum admitted 100 per Minute.' }
  return organisationOf(call) === WITHOUT_PRO ? json(403, { code: 90, message: 'Organisationen har ikke Pro' }) : undefined
}

function operationsOf(bench: Bench, sms: { at: number; receiver: string }[]): Operation[] {
  let lastTimestamp = 0x20a5ea8
  let brownouts = 0
  const timestamp = (): string => (++lastTimestamp).toString(16).toUpperCase().padStart(16, '0')
  const invoices = new Map<string, { guid: string; timestamp: string; [member: string]: unknown }>()
  for (const guid of ['inv-1', 'inv-2', 'inv-3']) invoices.set(guid, { guid, timestamp: timestamp(), total: 125 })

  function invoice(call: Call, then: (invoice: { guid: string; timestamp: string; [member: string]: unknown }) => Answer): Answer {
    const known = invoices.get(call.params['guid'] ?? '')
    return known === undefined ? json(404, { code: 40, message: 'not found' }) : then(known)
  }
  /** Optimistic concurrency: every change names the version it is about. */
  function current(call: Call, known: { timestamp: string }, then: () => Answer): Answer {
    const members = membersOf(call)
    const given = members.get('Timestamp') ?? members.get('timestamp')
    if (given === undefined) return json(400, { code: 42, message: 'Timestamp is required' })
    return given === known.timestamp ? then() : json(400, { code: 58, message: 'The timestamp is outdated' })
  }
  return [
    {
      method: 'GET',
      template: '/v1.1/organizations',
      cacheable: true,
      handle: (call) =>
        representation(
          call,
          [
            { id: 100001, isPro: true },
            { id: 100002, isPro: true },
            { id: 100003, isPro: false }
          ],
          { maxAgeS: 60 }
        )
    },
    { method: 'GET', template: '/v1/{org}/contacts', handle: (call) => page(call) },
    {
      method: 'GET',
      template: '/v1/{org}/invoices/{guid}',
      cacheable: true,
      handle: (call) =>
        invoice(call, (known) => {
          if (field(call.fields, 'accept')?.includes('application/octet-stream') !== true) return representation(call, known, { maxAgeS: 30 })
          // no Vary: the provider forgets it
          return {
            status: 200,
            fields: [
              ['Content-Type', 'application/octet-stream'],
              ['Cache-Control', 'private, max-age=30']
            ],
            body: `%PDF-1.4 ${known.guid}`
          }
        })
    },
    {
      method: 'POST',
      template: '/v1/{org}/invoices',
      handle(call) {
        const guid = textOf(membersOf(call), 'Guid') ?? `inv-${invoices.size + 1}`
        if (invoices.size >= 10_000) return failure(500)
        const created = { guid, timestamp: timestamp(), total: 0 }
        invoices.set(guid, created)
        return json(201, { Guid: guid, TimeStamp: created.timestamp })
      }
    },
    {
      method: 'PUT',
      template: '/v1/{org}/invoices/{guid}',
      handle: (call) =>
        invoice(call, (known) =>
          current(call, known, () => {
            invoices.set(known.guid, { ...known, timestamp: timestamp() })
            return json(200, { TimeStamp: invoices.get(known.guid)?.timestamp })
          })
        )
    },
    {
      // a DELETE with a body is real
      method: 'DELETE',
      template: '/v1/{org}/invoices/{guid}',
      handle: (call) =>
        invoice(call, (known) =>
          current(call, known, () => {
            invoices.delete(known.guid)
            return empty(200)
          })
        )
    },
    { method: 'POST', template: '/v1/{org}/invoices/fetch', repeatable: true, handle: () => json(200, { totalInclVat: 156.25 }) },
    {
      method: 'POST',
      template: '/v1/{org}/files',
      handle: (call) => (call.body.length > LARGEST_FILE_BYTES ? empty(413) : json(201, { fileGuid: `file-${call.body.length}` }))
    },
    {
      method: 'POST',
      template: '/v2/{org}/invoices/{guid}/email',
      handle: (call) =>
        invoice(call, () => {
          const mail = membersOf(call)
          if (mail.get('SendAsSms') !== true) return empty(200)
          const receiver = (textOf(mail, 'SmsReceiverPhoneNumber') ?? '').replaceAll(/[\s-]/g, '')
          if (!/^(?:(?:\+|00)45)?\d{8}$/.test(receiver)) bench.note('DI-17', 'S1', call.client, 'an SMS to a number outside Denmark')
          // only the last digits: it is somebody's number
          if (sms.length < MOST_SMS_KEPT) sms.push({ at: Math.round(call.at), receiver: `…${receiver.slice(-2)}` })
          return empty(200)
        })
    },
    {
      // in its last days: every second call fails
      method: 'GET',
      template: '/v1/{org}/ledgeritems',
      handle: () =>
        brownouts++ % 2 === 0
          ? { status: 480, fields: [['Content-Type', 'text/plain']], body: 'Brownout' }
          : json(200, { Collection: [] }, [['Cache-Control', 'no-store']])
    }
  ]
}

/** Pages count from 0. */
function page(call: Call): Answer {
  const query = new URLSearchParams(call.target.split('?')[1])
  const size = Number(query.get('pageSize') ?? 100)
  if (!(size > 0 && size <= 1000)) return json(400, { code: 42, message: 'pageSize is at most 1000' })
  return json(
    200,
    { Collection: [], Pagination: { Page: Number(query.get('page') ?? 0), PageSize: size, Result: 0, ResultWithoutFilter: 0, MaxPageSizeAllowed: 1000 } },
    [['Cache-Control', 'no-store']]
  )
}

function failure(status: number): Answer {
  return json(status, { code: status === 404 ? 40 : 0, message: 'Der skete en fejl' })
}
