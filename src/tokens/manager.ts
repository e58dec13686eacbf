import type { Signal } from '../exchange/signal.ts'
import type { TokenReason } from '../exchange/events.ts'
import type { Response } from '../exchange/message.ts'
import { isProblem, Problem } from '../exchange/problem.ts'
import type { Timer } from '../exchange/clock.ts'
import type { Tools } from '../exchange/tools.ts'
import { abandonable } from '../exchange/waiting.ts'
import { field } from '../http/fields.ts'
import { challengeError, isAboutTheToken } from './challenge.ts'
import { reuseRatio, warmAt } from './frugality.ts'
import { authorizationOf, heldOf, type Held } from './held.ts'
import { KeyError } from './key-error.ts'
import type { Material, MaterialSource } from './material.ts'
import type { CredentialOptions } from './options.ts'
import type { Outcome, Renewal } from './renewal.ts'
import type { AttemptTarget, Authorization, CredentialStatus } from './source.ts'

/**
 * Where one token stands. The old token serves through a renewal and its failure, so every state may hold one.
 *
 * A flight belongs to nobody: it has its own signal, callers only wait for it, and its failure is everybody's.
 */
type State =
  | { readonly kind: 'empty'; readonly held: undefined }
  | { readonly kind: 'held'; readonly held: Held }
  | { readonly kind: 'fetching'; readonly held: Held | undefined; readonly flight: Promise<Held> }
  | { readonly kind: 'cooling'; readonly held: Held | undefined; readonly until: number; readonly problem: Problem }
  | { readonly kind: 'latched'; readonly held: Held | undefined; readonly material: Material; readonly lookAgainAt: number; readonly problem: Problem }

type ManagerTools = Tools & { readonly materials: MaterialSource; readonly renewal: Renewal }

export type TokenManager = {
  authorize(attempt: AttemptTarget, signal: Signal): Authorization | Promise<Authorization>
  rejected(attempt: AttemptTarget, authorization: Authorization, response: Response, signal: Signal): Promise<boolean>
  answered(attempt: AttemptTarget, response: Response): void
  /** Takes up what the store remembers. */
  recall(): Promise<void>
  renew(): Promise<void>
  status(): Pick<CredentialStatus, 'state' | 'fingerprint' | 'obtainedAt' | 'expiresAt' | 'lastError'>
  close(): Promise<void>
}

const KEY_PROBLEM_PAUSE_MS = 1_000
const CLOSING_MS = 2_000
// Somebody may have signed in, or an operator of another replica may have ended the latch: only the store knows.
const LOOK_AGAIN_MS = 5_000

/** Holds one token: hands it out at once, renews it once for all, gives it up when it has expired. */
export function tokenManager(name: string, options: CredentialOptions, tools: ManagerTools): TokenManager {
  const { clock, materials, renewal } = tools
  const ending = new AbortController()
  const boundToCertificate = options.clientAuth?.endsWith('tls_client_auth') ?? false
  let state: State = { kind: 'empty', held: undefined }
  let generation = 0
  let lastError: string | undefined
  let warming: Timer | undefined

  function authorize(attempt: AttemptTarget, signal: Signal): Authorization | Promise<Authorization> {
    const held = usable()
    if (held === undefined) {
      const reason = state.held === undefined ? 'cold' : 'expired'
      return abandonable(fly(reason), signal).then((fresh) => use(fresh, attempt))
    }
    if (clock.now() >= held.renewableAt && mayFly()) quietly('expired')
    return use(held, attempt)
  }

  function use(held: Held, attempt: AttemptTarget): Authorization | Promise<Authorization> {
    held.used = true
    return authorizationOf(held, attempt, clock)
  }

  function usable(): Held | undefined {
    const { held } = state
    if (held === undefined || clock.now() >= held.expiresAt) return undefined
    // A token bound to a certificate ends with it (RFC 8705 §3).
    return boundToCertificate && hasChanged((material) => material.identity !== held.identity) ? undefined : held
  }

  async function rejected(attempt: AttemptTarget, authorization: Authorization, response: Response, signal: Signal): Promise<boolean> {
    try {
      const held = usable()
      if (held !== undefined && held.generation !== authorization.generation) return true
      if (!isAboutTheToken(response.fields)) return false
      if (held?.dpop !== undefined) {
        held.dpop.noteNonce(attempt.url, field(response.fields, 'dpop-nonce'))
        if (challengeError(response.fields) === 'use_dpop_nonce') return true
      }
      const fresh = await abandonable(fly('rejected'), signal)
      return fresh.generation !== authorization.generation
    } catch {
      // No other token is to be had, or the caller has gone: the provider's 401 is the answer, and the flight has told why.
      return false
    }
  }

  function mayFly(): boolean {
    if (state.kind === 'held') return true
    if (state.kind === 'cooling') return clock.now() >= state.until
    return state.kind === 'latched' && mayBeOpen(state)
  }

  function hasChanged(differs: (material: Material) => boolean): boolean {
    try {
      return differs(materials.current())
    } catch {
      // A key that cannot be read now changes nothing yet.
      return false
    }
  }

  /** Whether the latch is worth another look, which asks nobody: a secret has changed (material is made anew only then), or somebody may have signed in. */
  function mayBeOpen(latched: { readonly material: Material; readonly lookAgainAt: number }): boolean {
    return clock.now() >= latched.lookAgainAt || hasChanged((material) => material !== latched.material)
  }

  /** The one flight under way, or a new one where that may be. */
  function fly(reason: TokenReason): Promise<Held> {
    if (state.kind === 'fetching') return state.flight
    if (state.kind === 'cooling' && clock.now() < state.until) return Promise.reject(again(state.problem, state.until - clock.now()))
    if (state.kind === 'latched' && !mayBeOpen(state)) return Promise.reject(state.problem)
    const { held } = state
    // Not before the state says so: what happens at once must not be overwritten.
    const flight = Promise.resolve().then(() => land(reason, held))
    state = { kind: 'fetching', held, flight }
    return flight
  }

  function quietly(reason: TokenReason): void {
    fly(reason).catch(leftInTheState)
  }

  async function land(reason: TokenReason, held: Held | undefined): Promise<Held> {
    try {
      return settle(await renewal.run(reason, held?.token, ending.signal), held)
    } catch (error) {
      if (isProblem(error)) throw error
      const problem = problemOf(error)
      if (lastError !== problem.message) tools.report({ kind: 'warning', about: `credential ${name}`, message: problem.message })
      lastError = problem.message
      state = { kind: 'cooling', held, until: clock.now() + KEY_PROBLEM_PAUSE_MS, problem }
      throw problem
    }
  }

  function settle(outcome: Outcome, held: Held | undefined): Held {
    switch (outcome.kind) {
      case 'token':
        return adopt(outcome, held)
      case 'unchanged':
        if (held !== undefined) {
          state = { kind: 'held', held }
          return held
        }
        throw pause(clock.now() + KEY_PROBLEM_PAUSE_MS, undefined, held)
      case 'paused':
        throw pause(outcome.until, outcome.failure?.message, held)
      case 'latched':
        throw latch(outcome, held)
    }
  }

  function adopt(outcome: Outcome & { kind: 'token' }, before: Held | undefined): Held {
    const now = clock.now()
    generation += 1
    const held = heldOf(outcome, generation, options, now)
    lastError = undefined
    state = { kind: 'held', held }
    tools.report({
      kind: 'token-held',
      credential: name,
      fingerprint: held.fingerprint,
      obtainedAt: held.token.requestedAt,
      expiresAt: held.expiresAt,
      reuseRatio: before === undefined ? undefined : reuseRatio(before.token, now)
    })
    keepWarm(held)
    return held
  }

  function keepWarm(held: Held): void {
    warming?.cancel()
    if (options.renew !== 'keep_warm') return
    warming = clock.after(warmAt(held.token, options) - clock.now(), () => {
      // A token that nobody used is not renewed for nobody.
      if (held.used && state.held === held && mayFly()) quietly('warm')
    })
  }

  function pause(until: number, why: string | undefined, held: Held | undefined): Problem {
    if (why !== undefined) lastError = why
    const reason = why === undefined ? '' : `: ${why}`
    const problem = new Problem('token-unavailable', { detail: `the token service gives no token for credential ${name} now${reason}` })
    state = { kind: 'cooling', held, until, problem }
    return again(problem, until - clock.now())
  }

  function latch(outcome: Outcome & { kind: 'latched' }, held: Held | undefined): Problem {
    const { error } = outcome
    const wayOut = error === 'sign_in_ended' ? `sign in again with attache login ${name}` : 'correct its secret, which ends the pause'
    const problem = new Problem('credential-rejected', { detail: `the token service refused credential ${name} (${error}): ${wayOut}` })
    if (lastError !== error) tools.report({ kind: 'credential-latched', credential: name, error })
    lastError = error
    state = { kind: 'latched', held, material: outcome.material, lookAgainAt: clock.now() + LOOK_AGAIN_MS, problem }
    return problem
  }

  function problemOf(error: unknown): Problem {
    if (error instanceof KeyError) return new Problem('credential-rejected', { detail: `credential ${name}: ${error.message}`, cause: error })
    return new Problem('token-unavailable', { detail: `no token for credential ${name} could be asked for`, cause: error })
  }

  async function recall(): Promise<void> {
    try {
      const outcome = await renewal.recall()
      if (outcome !== undefined && state.kind === 'empty') settle(outcome, undefined)
    } catch (error) {
      // Told to whoever needs the token; at start it is only worth a line.
      if (!isProblem(error)) tools.report({ kind: 'warning', about: `credential ${name}`, message: problemOf(error).message })
    }
  }

  async function renew(): Promise<void> {
    if (state.kind === 'fetching') return void (await state.flight)
    await renewal.forgive()
    state = state.held === undefined ? { kind: 'empty', held: undefined } : { kind: 'held', held: state.held }
    await fly('operator')
  }

  async function close(): Promise<void> {
    warming?.cancel()
    if (state.kind === 'fetching') {
      // A rotated refresh token that is on its way must still be kept; but nobody waits for it long.
      const patience = new AbortController()
      const timer = clock.after(CLOSING_MS / clock.realMs(1), () => patience.abort())
      await abandonable(state.flight, patience.signal).catch(leftInTheState)
      timer.cancel()
    }
    ending.abort()
  }

  function status(): ReturnType<TokenManager['status']> {
    const { held } = state
    return {
      state: state.kind,
      ...(held === undefined ? {} : { fingerprint: held.fingerprint, obtainedAt: Math.round(held.token.requestedAt), expiresAt: Math.round(held.expiresAt) }),
      ...(lastError === undefined ? {} : { lastError })
    }
  }

  return {
    authorize,
    rejected,
    answered(attempt, response) {
      const nonce = state.held?.dpop === undefined ? undefined : field(response.fields, 'dpop-nonce')
      state.held?.dpop?.noteNonce(attempt.url, nonce)
    },
    recall,
    renew,
    status,
    close
  }
}

/** The old token serves on, and whoever needs the outcome finds it in the state. */
function leftInTheState(): void {}

/** The same problem, told later: with what is left of the wait. */
function again(problem: Problem, leftMs: number): Problem {
  return new Problem(problem.code, { ...problem.details, retryAfterMs: Math.max(0, leftMs) })
}
