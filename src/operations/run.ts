import type { Send } from '../exchange/chain.ts'
import type { Body, Response, Trace } from '../exchange/message.ts'
import type { Problem } from '../exchange/problem.ts'
import type { Tools } from '../exchange/tools.ts'
import type { RetryOptions } from '../policies/retry.ts'
import type { Store } from '../state/store.ts'
import type { Entry } from './journal.ts'
import type { AsyncOptions } from './options.ts'

/** What background work needs of an upstream; looked up anew each time, because a reload may change it. */
export type OperationsUpstream = {
  readonly door: {
    readonly base: URL
    readonly prefix: string
    readonly credentialOf: (method: string, path: string) => string | undefined
    readonly operationOf: (method: string, path: string) => string
    /** The whole chain. A request that brings a finite `deadlineAt` keeps it. */
    readonly send: Send
  }
  readonly options: {
    readonly async: AsyncOptions
    readonly retry: Pick<RetryOptions, 'attempts' | 'backoff' | 'on' | 'routes' | 'never'>
    readonly timeout: { readonly total: number }
  }
}

export type OperationsTools = Tools & {
  readonly store: Store
  readonly sealKey: Buffer
  readonly upstreamOf: (name: string) => OperationsUpstream | undefined
  /** Turns a problem into the answer the app would see. */
  readonly problemAnswer: (problem: Problem, context: { upstream: string; requestId: string }) => Response
}

/** How a run ended, before anything of it is kept. */
export type Settled = { readonly kind: 'answer'; readonly answer: Response } | { readonly kind: 'problem'; readonly problem: Problem }

/** One request carried out apart from its caller. */
export type Run = {
  readonly entry: Entry
  readonly body: Body
  readonly trace: Trace
  /** In the journal: it goes on without its caller. */
  isKept: boolean
  /** Settles when the journal has it, or could not take it. */
  accepting: Promise<void>
  /** Resolves when its outcome is written down; undefined where there is nothing to tell (cancelled, stopped). */
  concluded: Promise<Settled | undefined>
  /** Grows when another replica takes it over. */
  fence: number
  controller: AbortController
  phase: 'waiting' | 'running'
  /** Clock time. */
  nextTryAt: number
}

/** Why a run was stopped from outside. */
export class Stopped extends Error {
  readonly why: 'cancelled' | 'closing' | 'reloaded'

  constructor(why: Stopped['why']) {
    super(`the operation was stopped: ${why}`)
    this.name = 'Stopped'
    this.why = why
  }
}

export function runOf(entry: Entry, body: Body, trace: Trace): Run {
  const nothingYet = { accepting: Promise.resolve(), concluded: Promise.resolve(undefined) }
  return { entry, body, trace, isKept: false, ...nothingYet, fence: 0, controller: new AbortController(), phase: 'waiting', nextTryAt: 0 }
}

export function newTrace(attempts = 0): Trace {
  return { attempts, upstreamMs: 0, waitMs: 0, tokenMs: 0, sent: false }
}
