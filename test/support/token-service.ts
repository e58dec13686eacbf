import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { loadConfig } from '../../src/config/load.ts'
import type { Response } from '../../src/exchange/message.ts'
import { memoryStore } from '../../src/state/memory.ts'
import type { Store } from '../../src/state/store.ts'
import { openCredentials, type CredentialOptions } from '../../src/tokens/credentials.ts'
import type { FetchAnswer, FetchOptions, TokenFetch } from '../../src/tokens/fetch.ts'
import type { AttemptTarget, Authorization, Credentials, TokenSource } from '../../src/tokens/source.ts'
import { testClock, type TestClock } from './clock.ts'
import { reports } from './policy-call.ts'

/** A request as the token service gets it. */
export type Asked = FetchOptions & { readonly url: string; readonly parameters: URLSearchParams; readonly at: number }

export type TokenService = {
  readonly tokenFetch: TokenFetch
  readonly asked: Asked[]
  /** How it answers; replace it to change its mind. Throwing a `FetchFailure` is no answer. */
  answer: (asked: Asked, count: number) => Partial<FetchAnswer> | Promise<Partial<FetchAnswer>>
}

/** A token service behind the port that token requests leave by; issues `token-1`, `token-2`, … for an hour. */
export function tokenService(clock: TestClock): TokenService {
  const asked: Asked[] = []
  const service: TokenService = {
    asked,
    answer: (_asked, count) => issued(`token-${count}`),
    async tokenFetch(url, options) {
      const one = { ...options, url, parameters: new URLSearchParams(options.body ?? ''), at: clock.now() }
      asked.push(one)
      return { status: 200, fields: [], text: '', ...(await service.answer(one, asked.length)) }
    }
  }
  return service
}

/** A token answer. */
export function issued(token: string, more: Readonly<Record<string, unknown>> = {}): Partial<FetchAnswer> {
  return json(200, { access_token: token, token_type: 'Bearer', expires_in: 3600, ...more })
}

export function json(status: number, body: unknown, fields: readonly string[] = []): Partial<FetchAnswer> {
  return { status, fields: ['content-type', 'application/json', ...fields], text: JSON.stringify(body) }
}

/** A credential as the config loader gives it; a token URL and a client are there unless the tree has its own. */
export function credential(tree: Readonly<Record<string, unknown>> = {}): CredentialOptions {
  const folder = mkdtempSync(join(tmpdir(), 'attache-credential-'))
  try {
    const file = join(folder, 'attache.yaml')
    const defaults = {
      grant: 'client_credentials',
      ...('issuer' in tree ? {} : { tokenUrl: 'http://127.0.0.1:9/token' }),
      clientId: 'client-1',
      ...('key' in tree ? {} : { clientSecret: 'client-secret-1' })
    }
    writeFileSync(file, JSON.stringify({ version: 1, credentials: { a: { ...defaults, ...tree } } }), { mode: 0o600 })
    const loaded = loadConfig(file, {}, { speed: 1 })
    const options = loaded.kind === 'loaded' ? loaded.config.credentials['a'] : undefined
    if (options === undefined) throw new Error(`refused: ${JSON.stringify(loaded)}`)
    return options
  } finally {
    rmSync(folder, { recursive: true })
  }
}

export type OpenedCredential = {
  readonly credentials: Credentials
  readonly source: TokenSource
  readonly clock: TestClock
  readonly service: TokenService
  readonly store: Store
  readonly events: ReturnType<typeof reports>['events']
  /** The value of the header field, or the code of the problem. */
  bearer(target?: string): Promise<string>
  authorize(target?: string): Promise<Authorization>
  /** Tells the source that the provider answered 401, gives whether a replay is worth it. */
  reject(authorization: Authorization, fields?: readonly string[]): Promise<boolean>
}

/** Opens one credential on a test clock, a memory store and a token service of its own, or on those given. */
export async function opened(
  tree: Readonly<Record<string, unknown>> = {},
  shared: { clock?: TestClock; service?: TokenService; store?: Store } = {}
): Promise<OpenedCredential> {
  const clock = shared.clock ?? testClock()
  const service = shared.service ?? tokenService(clock)
  const store = shared.store ?? memoryStore({ clock })
  const { events, report } = reports()
  const credentials = await openCredentials(
    { a: credential(tree) },
    { clock, random: () => 0, report, store, version: '1.2.3', tokenFetch: service.tokenFetch }
  )
  const source = credentials.get('a')
  if (source === undefined) throw new Error('not opened')

  async function authorize(target = '/'): Promise<Authorization> {
    // Lets whatever the call set going come to its end, as a request's other work would.
    const authorization = await source?.authorize(attempt(target), new AbortController().signal)
    await clock.advance(0)
    if (authorization === undefined) throw new Error('no authorization')
    return authorization
  }
  return {
    credentials,
    source,
    clock,
    service,
    store,
    events,
    authorize,
    async bearer(target) {
      try {
        return (await authorize(target)).fields[1] ?? ''
      } catch (error) {
        return error instanceof Error && 'code' in error ? String(error.code) : String(error)
      }
    },
    reject: (authorization, fields = []) => source.rejected(attempt('/'), authorization, unauthorized(fields), new AbortController().signal)
  }
}

export function attempt(target = '/'): AttemptTarget {
  return { method: 'GET', url: `https://api.example${target}`, target }
}

export function unauthorized(fields: readonly string[] = []): Response {
  return { status: 401, fields, body: { kind: 'none' }, source: 'upstream' }
}
