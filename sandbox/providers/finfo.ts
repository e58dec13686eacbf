import { bearer } from '../bearer.ts'
import {
  empty,
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
import { refreshBook, type Refreshed, type RefreshOptions } from '../refresh.ts'
import { representation } from '../representation.ts'
import { breaker } from '../rules/breaker.ts'
import { caching } from '../rules/caching.ts'
import { connections } from '../rules/connections.ts'
import { hygiene } from '../rules/hygiene.ts'
import { repeats } from '../rules/repeats.ts'
import { retries } from '../rules/retries.ts'
import { surface } from '../rules/surface.ts'
import { tokens as tokenRule } from '../rules/tokens.ts'
import { waits } from '../rules/waits.ts'
import { tokenEndpoint, type Issued, type OAuthError } from '../token-endpoint.ts'
import { tokenBook } from '../tokens.ts'

export type FinfoOptions = {
  readonly client?: { readonly id: string; readonly secret: string }
  readonly user?: { readonly name: string; readonly password: string }
  readonly tokenLifetimeMs?: number
  /** How refresh tokens behave in this realm; 30 min idle and 10 h in all by default. */
  readonly refresh?: Partial<Pick<RefreshOptions, 'mode' | 'graceMs' | 'idleMs' | 'maxMs' | 'mostLogins'>>
  /** After so many early token requests the partner is suspended for an hour. Default never. */
  readonly suspendAfter?: number
}

const HOUR_MS = 3_600_000
// Keycloak's brute-force detection: two failures within a second, or thirty in all
const QUICK_MS = 1000
const LOCK_MS = 60_000
const MOST_FAILURES = 30

/** Finfo: a Keycloak realm with user and password at first and refresh tokens from then on; 204 means there is nothing. */
export function finfo(options: FinfoOptions = {}): ProviderPlan {
  const client = options.client ?? { id: 'finfo-api', secret: 'finfo-secret' }
  const user = options.user ?? { name: 'finfo-user', password: 'pä ss+&=%' }
  const { tokenLifetimeMs = 900_000, suspendAfter = Infinity } = options
  return { name: 'finfo', open }

  function open(plain: Bench): Provider {
    const suspension = suspending(plain, suspendAfter)
    const { bench } = suspension
    const book = tokenBook()
    const refreshes = refreshBook(
      { mode: 'reuse', idleMs: HOUR_MS / 2, maxMs: 10 * HOUR_MS, mostLogins: 3, clauses: { reused: 'FI-20', expired: 'FI-13' }, ...options.refresh },
      bench
    )
    const door = loginDoor(user)
    const rules: Rule[] = [
      tokenRule({ early: 'FI-19', flood: 'FI-23', refused: 'FI-25', backoff: 'FI-39', floor: 0.9, ladderMs: [10_000, 30_000, 60_000] }, bench),
      waits({ retryAfter: 'FI-38', byStatus: { pauses: { 429: ['FI-38', 10_000] }, probes: 0 } }, bench),
      retries({ spacing: 'FI-39', ladderMs: [10_000, 30_000, 60_000], silenceAfter: 5 }, bench),
      breaker({ clause: 'IA-39', failures: 5, cooldownMs: 60_000 }, bench),
      repeats({ duplicate: 'IA-38', stubborn: 'FI-36' }, bench),
      caching({ missing: 'FI-35', redundant: 'IA-53', missingMs: { 204: 30_000 } }, bench),
      surface({ unknown: 'FI-37', enumeration: { clause: 'IA-54', distinct: 500, windowMs: HOUR_MS } }, bench),
      hygiene({ identity: 'FI-24', foreign: 'IA-26', types: 'FI-34', secrets: 'IA-04' }, bench),
      connections({ held: 'IA-41', heldMs: 120_000, idle: 'IA-42', unused: 'RFC9112-9.3' }, bench)
    ]
    const authenticateBearer = bearer(book, bench, { missing: 'FI-07', expired: 'FI-18', exposed: 'IA-02' })

    function answer(ask: TokenAsk, refreshed: Refreshed): Issued {
      const token = book.issue(ask.client, ask.subject, ask.at, tokenLifetimeMs)
      refreshed.login.last = token
      return {
        token,
        answer: {
          expires_in: tokenLifetimeMs / 1000,
          refresh_expires_in: Math.floor(refreshed.expiresInMs / 1000),
          refresh_token: refreshed.value,
          token_type: 'Bearer',
          id_token: `eyJhbGciOiJub25lIn0.${Buffer.from('{"sub":"sandbox"}').toString('base64url')}.`,
          'not-before-policy': 0,
          session_state: refreshed.login.id,
          scope: 'openid email profile'
        }
      }
    }

    return {
      rules,
      operations: operationsOf(),
      authenticate(request: ApiRequest): Caller {
        const caller = authenticateBearer(request)
        return suspension.isOn() ? { ...caller, refusal: empty(403) } : caller
      },
      failure,
      revokeTokens: () => book.revokeAll(),
      token: tokenEndpoint(
        {
          clients: () => [client],
          auth: ['client_secret_post', 'client_secret_basic'],
          audiences: () => [],
          foreign: [],
          clauses: { form: 'FI-11', assertion: 'FI-11', exposed: 'IA-02' },
          rules,
          grants: {
            password: {
              subject: (form) => form.get('username') ?? '',
              issue(ask, form): Issued | OAuthError {
                if (suspension.isOn()) return { error: 'unauthorized_client', status: 403 }
                const name = form.get('username') ?? ''
                if (refreshes.live(ask.client, name, ask.at) !== undefined)
                  bench.note('FI-20', 'S1', ask.client, 'a new login although a refresh token was still good')
                if (!door.lets(name, form.get('password') ?? '', ask.at)) return { error: 'invalid_grant', status: 401 }
                return answer(ask, refreshes.begin(ask.client, name, form.get('scope') ?? '', ask.at))
              }
            },
            refresh_token: {
              subject: (form) => refreshes.find(form.get('refresh_token') ?? '')?.user ?? 'unknown',
              issue(ask, form): Issued | OAuthError {
                if (suspension.isOn()) return { error: 'unauthorized_client', status: 403 }
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

/** User and password, with Keycloak's protection against guessing: while locked even the right one is wrong. */
function loginDoor(user: { name: string; password: string }): { lets(name: string, password: string, at: number): boolean } {
  let failures = 0
  let failedAt = -Infinity
  let lockedUntil = -Infinity
  return {
    lets(name, password, at) {
      const isRight = name === user.name && password === user.password && at >= lockedUntil
      if (isRight) {
        failures = 0
        return true
      }
      failures++
      if (at - failedAt < QUICK_MS || failures >= MOST_FAILURES) lockedUntil = at + LOCK_MS
      failedAt = at
      return false
    }
  }
}

/** FI-25: who misuses the token service too often is shut out for an hour. */
function suspending(bench: Bench, after: number): { bench: Bench; isOn(): boolean } {
  let misuses = 0
  let until = -Infinity
  return {
    isOn: () => bench.clock.now() < until,
    bench: {
      ...bench,
      note(rule, severity, client, detail) {
        bench.note(rule, severity, client, detail)
        if (rule !== 'FI-19' && rule !== 'FI-23') return
        if (++misuses >= after) until = bench.clock.now() + HOUR_MS
      }
    }
  }
}

function operationsOf(): Operation[] {
  const article = (id: string): Record<string, unknown> => ({ finfoArticleId: id, name: `Article ${id}`, weight: 0.5, gtin: '07080001213916', stock: null })
  const isKnown = (id: string): boolean => /^\d+$/.test(id) && !id.endsWith('9')
  const one = (call: Call, maxAgeS: number): Answer => {
    const id = call.params['id'] ?? ''
    return isKnown(id) ? representation(call, { articles: [article(id)], pagination: { offset: 0, limit: 1, totalCount: 1 } }, { maxAgeS }) : empty(204)
  }
  return [
    { method: 'GET', template: '/v2.1/articles/{id}', cacheable: true, handle: (call) => one(call, 600) },
    { method: 'GET', template: '/v1.0/articles/{id}', cacheable: true, handle: (call) => one(call, 60) },
    {
      method: 'GET',
      template: '/v2.1/articles',
      handle(call) {
        const query = new URLSearchParams(call.target.split('?')[1])
        const limit = Number(query.get('limit') ?? Number.NaN)
        if (!query.has('offset') || !(limit > 0 && limit <= 1000)) return json(400, { error: 'offset and limit (at most 1000) are mandatory here' })
        return json(200, { articles: [article('1')], pagination: { offset: Number(query.get('offset')), limit, totalCount: 1 } }, [
          ['Cache-Control', 'no-store']
        ])
      }
    }
  ]
}

function failure(status: number): Answer {
  return status === 404
    ? { status, fields: [['Content-Type', 'text/html']], body: '<html>no such page</html>' }
    : json(status, { status, message: 'Finfo says no' })
}
