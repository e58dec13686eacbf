import { createHash } from 'node:crypto'
import type { TokenReason } from '../exchange/events.ts'
import type { Tools } from '../exchange/tools.ts'
import type { Store } from '../state/store.ts'
import type { TokenAnswer } from './answer.ts'
import { claimOf, type Claim, type Standing } from './claim.ts'
import { dpopProver, newDpopKey, type DpopProver } from './dpop.ts'
import type { TokenEndpoint } from './endpoint.ts'
import { TokenFailure } from './failure.ts'
import { expiresAt, forcedAllowedAt, pausedUntil, pauseMs, recentForced } from './frugality.ts'
import type { Grant } from './grants/grant.ts'
import { TOKEN_GRANTS, type TokenGrant } from './grants/registry.ts'
import { KeyError } from './key-error.ts'
import { assertValidNow } from './key-material.ts'
import type { Material, MaterialSource } from './material.ts'
import type { CredentialOptions } from './options.ts'
import { openRecord, recordKey, recordTtlMs, sealRecord, type StoredRefresh, type StoredToken, type TokenRecord } from './record.ts'

/** What became of a wish for another token. */
export type Outcome =
  | { readonly kind: 'token'; readonly token: StoredToken; readonly material: Material; readonly dpop: DpopProver | undefined }
  | { readonly kind: 'paused'; readonly until: number; readonly failure: TokenFailure | undefined }
  | { readonly kind: 'latched'; readonly error: string; readonly material: Material }
  /** Renewing by force is not due yet: the held token stays. */
  | { readonly kind: 'unchanged' }

export type Renewal = {
  /** The token or the latch that the store remembers, without asking anybody; undefined where it has neither. */
  recall(): Promise<Outcome | undefined>
  /**
   * Another token than `held`: somebody else's newer one where there is one, else a new one, asked for by one process at
   * a time and within the credential's frugality. Throws `KeyError` for a key that cannot be used.
   */
  run(reason: TokenReason, held: StoredToken | undefined, signal: AbortSignal): Promise<Outcome>
  /** Forgets a latch and a pause: an operator says that asking again makes sense. */
  forgive(): Promise<void>
}

type RenewalTools = Tools & { readonly store: Store; readonly endpoint: TokenEndpoint; readonly materials: MaterialSource; onRequest(): void }

const REFUSED_FOR_GOOD = ['invalid_client', 'unauthorized_client', 'unsupported_grant_type', 'invalid_scope']
const SIGN_IN_ENDED = 'sign_in_ended'
// A service that says 401 or 403 without a reason has probably shut us out: more than a try in five minutes looks like an attack.
const SHUT_OUT_PAUSE_MS = 300_000
// A refresh token that ends while it travels is a refresh token wasted.
const REFRESH_MARGIN_MS = 5_000

/** Gets tokens for one identity, with the store as memory and as the lock between replicas. */
export function renewal(name: string, options: CredentialOptions & { readonly grant: TokenGrant }, tools: RenewalTools): Renewal {
  const { clock, store, materials } = tools
  const provers = new Map<string, DpopProver>()

  async function recall(): Promise<Outcome | undefined> {
    const material = materials.current()
    const outcome = verdict(await load(material), material, undefined)
    // A pause may be what another replica leaves behind only if it dies in the token request it is making right now.
    return outcome?.kind === 'paused' ? undefined : outcome
  }

  async function run(reason: TokenReason, held: StoredToken | undefined, signal: AbortSignal): Promise<Outcome> {
    const material = materials.current()
    assertValidNow(material.key, options.expiresAt, clock.wallNow())
    const grant: Grant = TOKEN_GRANTS[options.grant]
    if ((grant.endsAt?.(material) ?? Infinity) <= clock.wallNow()) throw new KeyError('subjectToken has expired, replace it')
    const claim = await claimOf(
      recordKey(material),
      { clock, store, giveUpAfterMs: options.timeout, signal },
      async (): Promise<Standing<Outcome, TokenRecord>> => {
        const record = await load(material)
        const known = verdict(record, material, held)
        // While somebody else asks, the pause is only what a crash of theirs would leave behind.
        if (known !== undefined && known.kind !== 'paused') return { settled: known }
        if (reason === 'rejected' && held !== undefined && forcedAllowedAt(record.forcedAt, held.lifetimeMs, options, clock.now()) > clock.now()) {
          return { settled: { kind: 'unchanged' } }
        }
        return known === undefined ? { open: record } : { open: record, unlessFree: known }
      }
    )
    if (claim.kind === 'settled') return claim.outcome
    if (claim.kind === 'busy') return { kind: 'paused', until: clock.now() + 1000, failure: undefined }
    try {
      return await ask(reason, claim.seen, material, claim.claim, signal)
    } finally {
      await claim.claim.release()
    }
  }

  /** What a record already decides; undefined where a token request is in order. */
  function verdict(record: TokenRecord, material: Material, held: StoredToken | undefined): Outcome | undefined {
    const now = clock.now()
    const { token } = record
    if (token !== undefined && token.value !== held?.value && now < expiresAt(token, now)) {
      return { kind: 'token', token, material, dpop: proverOf(record) }
    }
    if (record.latch !== undefined && !isNewSignIn(record, material)) return { kind: 'latched', error: record.latch.error, material }
    const until = pausedUntil(record.pausedUntil, now)
    return until > now ? { kind: 'paused', until, failure: undefined } : undefined
  }

  async function ask(reason: TokenReason, seen: TokenRecord, material: Material, claim: Claim, signal: AbortSignal): Promise<Outcome> {
    let record = begin(reason, seen)
    try {
      const refresh = usableRefresh(record, material)
      if (refresh !== undefined) {
        record = { ...record, refresh: { ...refresh, spentAt: clock.now() }, ...(options.grant === 'refresh_token' ? { chain: chainOf(material) } : {}) }
        await save(record, material, claim)
        try {
          return await keep(await request('refresh_token', refresh.value), refresh, record, material, claim)
        } catch (failure) {
          record = afterRefreshFailure(failure, refresh, record)
          if (options.grant === 'refresh_token' || record.refresh !== undefined) throw failure
        }
      }
      if (options.grant === 'refresh_token') throw new TokenFailure('refused', 'its sign-in has ended', { error: SIGN_IN_ENDED })
      await save(record, material, claim)
      return await keep(await request(options.grant, undefined), undefined, record, material, claim)
    } catch (failure) {
      if (!(failure instanceof TokenFailure)) throw failure
      return afterFailure(failure, record, material, claim)
    }

    function request(grant: TokenGrant, refreshToken: string | undefined): ReturnType<TokenEndpoint['request']> {
      return tools.endpoint.request({
        grant: TOKEN_GRANTS[grant],
        material,
        refreshToken,
        dpop: proverOf(record),
        signal,
        onRequest: ({ durationMs, failure }) => {
          tools.onRequest()
          const result = failure === undefined ? 'success' : latches(failure, grant) ? 'rejected' : 'failure'
          tools.report({ kind: 'token-request', credential: name, grant, reason, result, durationMs, detail: failure?.detail })
        }
      })
    }
  }

  /** The record as it is written before asking: should we never write again, it leaves a failure and a pause behind. */
  function begin(reason: TokenReason, seen: TokenRecord): TokenRecord {
    const now = clock.now()
    const { latch: _over, ...rest } = seen
    return {
      ...rest,
      failures: seen.failures + 1,
      pausedUntil: now + pauseMs(seen.failures + 1, undefined, tools.random()),
      forcedAt: reason === 'rejected' ? [...recentForced(seen.forcedAt, now), now] : recentForced(seen.forcedAt, now),
      ...(options.dpop && seen.dpopKey === undefined ? { dpopKey: newDpopKey() } : {})
    }
  }

  function usableRefresh(record: TokenRecord, material: Material): StoredRefresh | undefined {
    if (options.grant !== 'password' && options.grant !== 'refresh_token') return undefined
    if (material.refreshToken !== undefined && isNewSignIn(record, material)) return { value: material.refreshToken, expiresAt: undefined, spentAt: undefined }
    const { refresh } = record
    const now = clock.now()
    if (refresh === undefined || (refresh.expiresAt !== undefined && refresh.expiresAt - REFRESH_MARGIN_MS <= now)) return undefined
    const maySpendAgain = options.refreshUse === 'reusable' || (refresh.spentAt !== undefined && now < refresh.spentAt + options.refreshGrace)
    return refresh.spentAt === undefined || maySpendAgain ? refresh : undefined
  }

  function isNewSignIn(record: TokenRecord, material: Material): boolean {
    return options.grant === 'refresh_token' && material.refreshToken !== undefined && record.chain !== chainOf(material)
  }

  function afterRefreshFailure(failure: unknown, refresh: StoredRefresh, record: TokenRecord): TokenRecord {
    if (!(failure instanceof TokenFailure)) return record
    const { refresh: _spent, ...without } = record
    // The service has forgotten it: the way in is the primary grant, at once.
    if (failure.error === 'invalid_grant' && isAnswered(failure)) return without
    // It may have been used up, and then using it again may end the whole sign-in; what remains says that it is spent.
    if (failure.mayHaveArrived) return record
    return { ...record, refresh }
  }

  async function keep(
    answer: Awaited<ReturnType<TokenEndpoint['request']>>,
    used: StoredRefresh | undefined,
    record: TokenRecord,
    material: Material,
    claim: Claim
  ): Promise<Outcome> {
    const { accessToken: value, scheme, lifetimeMs, requestedAt, receivedAt } = answer
    const token: StoredToken = { value, scheme, lifetimeMs, requestedAt, receivedAt }
    const { refresh: _old, ...rest } = record
    const refresh = nextRefresh(answer, used, requestedAt)
    const kept: TokenRecord = { ...rest, token, failures: 0, pausedUntil: 0, ...(refresh === undefined ? {} : { refresh }) }
    if (await save(kept, material, claim)) return { kind: 'token', token, material, dpop: proverOf(kept) }
    // We were held up so long that somebody else took over: what they wrote is what everybody uses.
    const theirs = verdict(await load(material), material, undefined)
    return theirs?.kind === 'token' ? theirs : { kind: 'token', token, material, dpop: proverOf(kept) }
  }

  function nextRefresh(answer: TokenAnswer, used: StoredRefresh | undefined, requestedAt: number): StoredRefresh | undefined {
    if (options.grant !== 'password' && options.grant !== 'refresh_token') return undefined
    const until = answer.refreshLifetimeMs === undefined ? undefined : requestedAt + answer.refreshLifetimeMs
    if (answer.refreshToken !== undefined) return { value: answer.refreshToken, expiresAt: until, spentAt: undefined }
    // None in the answer: the one we sent stays good (RFC 6749 §6).
    return used === undefined ? undefined : { ...used, expiresAt: until ?? used.expiresAt, spentAt: undefined }
  }

  async function afterFailure(failure: TokenFailure, record: TokenRecord, material: Material, claim: Claim): Promise<Outcome> {
    const now = clock.now()
    const grant = failure.error === SIGN_IN_ENDED ? 'refresh_token' : options.grant
    if (latches(failure, grant)) {
      const error = grant === 'refresh_token' && failure.error === 'invalid_grant' ? SIGN_IN_ENDED : (failure.error ?? 'refused')
      await save({ ...record, failures: 0, pausedUntil: 0, latch: { error, at: now } }, material, claim)
      return { kind: 'latched', error, material }
    }
    const least = isAnswered(failure) && (failure.status === 401 || failure.status === 403) ? SHUT_OUT_PAUSE_MS : 0
    const until = now + Math.max(least, pauseMs(record.failures, failure.retryAfterMs, tools.random()))
    await save({ ...record, pausedUntil: until }, material, claim)
    return { kind: 'paused', until, failure }
  }

  async function load(material: Material): Promise<TokenRecord> {
    return openRecord(await store.get(recordKey(material)), material)
  }

  function save(record: TokenRecord, material: Material, claim: Claim): Promise<boolean> {
    const ttlMs = recordTtlMs(record, clock.now())
    return store.put(recordKey(material), sealRecord(record, material), { fence: claim.fence, ...(ttlMs === undefined ? {} : { ttlMs }) })
  }

  function proverOf({ dpopKey }: TokenRecord): DpopProver | undefined {
    if (dpopKey === undefined) return undefined
    const id = String(dpopKey.x)
    const prover = provers.get(id) ?? dpopProver(dpopKey)
    // One key at a time is in use; the map only spares making it anew.
    provers.clear()
    provers.set(id, prover)
    return prover
  }

  async function forgive(): Promise<void> {
    const material = materials.current()
    const { latch: _latch, ...record } = await load(material)
    await store.put(recordKey(material), sealRecord({ ...record, failures: 0, pausedUntil: 0 }, material))
  }

  return { recall, run, forgive }
}

/** Whether asking again with the same credential can only be refused again. */
function latches(failure: TokenFailure, grant: TokenGrant): boolean {
  if (!isAnswered(failure) || failure.error === undefined) return false
  if (failure.error === SIGN_IN_ENDED || REFUSED_FOR_GOOD.includes(failure.error)) return true
  // An assertion may be refused for its moment; a password or a refresh token only for itself.
  return failure.error === 'invalid_grant' && (grant === 'password' || grant === 'refresh_token')
}

function isAnswered(failure: TokenFailure): boolean {
  return failure.kind === 'refused' && (failure.status === undefined || failure.status < 500)
}

/** Tells chains of refresh tokens apart by the configured one they began with. */
export function chainOf(material: Material): string {
  return createHash('sha256')
    .update(material.refreshToken ?? '')
    .digest('hex')
    .slice(0, 16)
}
