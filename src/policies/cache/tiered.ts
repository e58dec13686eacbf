import type { Send } from '../../exchange/chain.ts'
import type { Request } from '../../exchange/message.ts'
import type { UpstreamTools } from '../../exchange/tools.ts'
import { reuse, type StaleWindows } from '../../http/freshness.ts'
import { selects } from '../../http/vary.ts'
import { ageMsOf, type StoredAnswer } from './answer.ts'
import type { Changes } from './changes.ts'
import type { Exchange, Exchanged, Situation } from './exchange.ts'
import type { CacheOptions } from './options.ts'
import type { SharedAnswers } from './second-tier.ts'
import { hitStatus, serve } from './serving.ts'
import type { AnswerStore } from './store.ts'

export type TieredTools = UpstreamTools & { readonly store: AnswerStore; readonly changes: Changes; readonly onStored: () => void }

/**
 * Looks into the second tier before a GET goes upstream, once for all who wait for the same flight. What is found comes into
 * the store; fresh, it is the answer, else it is validated like any stored one.
 */
export function tiered(exchange: Exchange, shared: SharedAnswers, options: CacheOptions, tools: TieredTools): Exchange {
  const { changes, clock, store } = tools
  const windows: StaleWindows = { ifErrorMs: options.staleIfError, whileRevalidateMs: options.staleWhileRevalidate }

  async function ask(request: Request, next: Send, situation: Situation): Promise<Exchanged> {
    const { asked, held, key } = situation
    const point = changes.now()
    const sight = await shared.look(request, key)
    const found = sight?.answer
    const answer = found !== undefined && isUsable(found, request, held) && !changes.since(request.target, point) ? found : undefined
    if (answer !== undefined) {
      store.put(answer, request.fields)
      tools.onStored()
    }
    const now = clock.now()
    const ageMs = answer === undefined ? 0 : ageMsOf(answer, now)
    const isFresh = answer !== undefined && reuse(answer, asked.control, ageMs, options.mode, windows) === 'fresh'
    situation.onLooked?.(isFresh)
    if (isFresh) {
      const cacheStatus = hitStatus(answer, Math.floor(ageMs / 1000), 'shared')
      return { response: serve(answer, request, asked, now, { source: 'cache', cacheStatus }), shared: answer }
    }
    const known: Situation = answer === undefined ? situation : { ...situation, held: answer, reason: 'stale' }
    return exchange.ask(request, next, sight === undefined ? known : { ...known, onKept: sight.keep })
  }

  function isUsable(answer: StoredAnswer, request: Request, held: StoredAnswer | undefined): boolean {
    if (!selects(request.fields, answer.selecting, answer.language)) return false
    // of several that fit the most recent one counts (RFC 9111 §4)
    if (held !== undefined && held.validators.dateMs > answer.validators.dateMs) return false
    // others need not know of what was announced here
    return answer.local === undefined || !changes.isSettling(request.target, clock.now())
  }

  return { ...exchange, ask }
}
