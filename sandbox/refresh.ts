import { randomBytes } from 'node:crypto'
import type { Bench } from './call.ts'
import type { Token } from './tokens.ts'

export type RefreshOptions = {
  /** `one-time`: each may be used once, a second use ends the grant. `reuse`: until it expires. */
  readonly mode: 'one-time' | 'reuse'
  /** With `one-time`: for so long after its first use a second one is forgiven. Default 0. */
  readonly graceMs?: number
  /** How long a refresh token lives unused. */
  readonly idleMs: number
  /** How long a login lasts, however often it is refreshed. */
  readonly maxMs: number
  /** More logins of one user at once end the oldest. */
  readonly mostLogins?: number
  readonly clauses: { readonly reused: string; readonly expired: string }
}

/** One login and all refresh tokens that come from it. */
export type Login = {
  readonly id: string
  readonly client: string
  readonly user: string
  readonly scope: string
  readonly endsAt: number
  idleUntil: number
  isOver: boolean
  /** The access token of the last answer, to know whether that answer arrived. */
  last: Token | undefined
}

export type Refreshed = { readonly login: Login; readonly value: string; readonly expiresInMs: number }

export type RefreshBook = {
  begin(client: string, user: string, scope: string, at: number): Refreshed
  /** Exchanges a refresh token; undefined where it is no good (`invalid_grant`). */
  exchange(value: string, client: string, at: number): Refreshed | undefined
  find(value: string): Login | undefined
  /** A login of this user whose refresh token is still good and has reached its owner. */
  live(client: string, user: string, at: number): Login | undefined
  /** Registers a refresh token the partner was given by hand. */
  seed(value: string, client: string, user: string, scope: string, at: number): void
}

type Entry = { readonly login: Login; readonly expiresAt: number; usedAt: number | undefined }

const MOST_TOKENS = 10_000

/** Refresh tokens by the rules of Keycloak and Visma Connect (RFC 6749 §6, RFC 9700 §4.14). */
export function refreshBook(options: RefreshOptions, bench: Bench): RefreshBook {
  const { mode, graceMs = 0, idleMs, maxMs, mostLogins = Infinity, clauses } = options
  const entries = new Map<string, Entry>()

  function logins(client: string, user: string): Login[] {
    const all = [...entries.values()].map(({ login }) => login).filter((login) => login.client === client && login.user === user && !login.isOver)
    return [...new Set(all)]
  }

  function add(value: string, login: Login, at: number): Refreshed {
    const oldest = entries.keys().next().value
    if (entries.size >= MOST_TOKENS && oldest !== undefined) entries.delete(oldest)
    const expiresAt = Math.min(at + idleMs, login.endsAt)
    login.idleUntil = expiresAt
    entries.set(value, { login, expiresAt, usedAt: undefined })
    return { login, value, expiresInMs: expiresAt - at }
  }

  function start(value: string, client: string, user: string, scope: string, at: number): Refreshed {
    const others = logins(client, user)
    const oldest = others[0]
    if (others.length >= mostLogins && oldest !== undefined) oldest.isOver = true
    return add(value, { id: fresh(), client, user, scope, endsAt: at + maxMs, idleUntil: at, isOver: false, last: undefined }, at)
  }

  return {
    begin: (client, user, scope, at) => start(fresh(), client, user, scope, at),
    seed: (value, client, user, scope, at) => void start(value, client, user, scope, at),
    find: (value) => entries.get(value)?.login,
    live: (client, user, at) => logins(client, user).find((login) => at < login.idleUntil - bench.slackMs && login.last?.lost !== true),
    exchange(value, client, at) {
      const entry = entries.get(value)
      if (entry === undefined || entry.login.client !== client || entry.login.isOver) return undefined
      if (at >= entry.expiresAt) {
        if (at > entry.expiresAt + bench.slackMs) bench.note(clauses.expired, 'S1', client, 'a refresh token that had expired')
        return undefined
      }
      if (mode === 'one-time' && entry.usedAt !== undefined && at > entry.usedAt + graceMs) {
        bench.note(clauses.reused, 'S1', client, 'a one-time refresh token used twice; the grant is void')
        entry.login.isOver = true
        return undefined
      }
      entry.usedAt ??= at
      return add(fresh(), entry.login, at)
    }
  }
}

function fresh(): string {
  return randomBytes(32).toString('base64url')
}
