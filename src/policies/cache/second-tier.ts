import { createHmac } from 'node:crypto'
import type { Clock } from '../../exchange/clock.ts'
import type { Request } from '../../exchange/message.ts'
import { VERSION } from '../../package.ts'
import { open, seal, sealingKey } from '../../state/seal.ts'
import type { Look, Place, SecondTier } from '../../state/second-tier.ts'
import { ageMsOf, isFreshOnArrival, type StoredAnswer } from './answer.ts'
import type { CacheOptions } from './options.ts'
import { packed, unpacked } from './packed.ts'

/** The second tier as the cache sees it: answers that other replicas, or this one before a restart, have got. */
export type SharedAnswers = {
  /** What is kept for this request; undefined where the tier is away. The answer may be of another variant than the request selects. */
  look(request: Request, key: string): Promise<Sight | undefined>
  /** Nobody may be given what was known of the target. Settles when replicas can see it, or after 50 ms. */
  drop(target: string): Promise<void>
  /** The same for everything. */
  dropAll(): Promise<void>
}

/** What was found, and the place for what comes instead of it. */
export type Sight = {
  readonly answer: StoredAnswer | undefined
  /** Shares a fresh answer that was asked for after this look, in the background. */
  keep(answer: StoredAnswer): void
}

export type SharedTools = {
  readonly clock: Clock
  readonly tier: SecondTier
  readonly sealKey: Buffer
  /** All that an answer depends on besides its request, e.g. the upstream's configuration: only equal ones share. */
  readonly scope: string
  readonly flightKeyOf: (request: Request, key: string) => string
}

// Where nobody says how long an answer may stand in for a failure; see http/freshness.
const DISCONNECTED_MS = 3_600_000
// A shorter rest of life is over before somebody else asks.
const SHORTEST_MS = 1_000

/**
 * Answers in the second tier, each under its identity, target and the fields in `vary`, sealed and bound to exactly that
 * place and generation: copied to another key, changed, or put back after it was dropped, a record does not open. Names in
 * the tier are keyed hashes, because a target may be as private as an answer.
 */
export function sharedAnswers(options: CacheOptions, tools: SharedTools): SharedAnswers {
  const { clock, tier } = tools
  const key = sealingKey(tools.sealKey, 'answers of the cache')
  const nameKey = sealingKey(tools.sealKey, 'names of the cache')
  const scope = nameOf(`${VERSION} ${tools.scope}`)

  function nameOf(text: string): string {
    return createHmac('sha256', nameKey).update(text).digest('base64url').slice(0, 32)
  }

  async function look(request: Request, requestKey: string): Promise<Sight | undefined> {
    const subject = tools.flightKeyOf(request, requestKey)
    const place: Place = { scope, shelf: nameOf(`T${request.target}`), slot: nameOf(`S${subject}`) }
    const lookedAt = clock.now()
    const seen = await tier.look(place)
    if (seen === undefined) return undefined
    const context = `${scope} ${seen.generation} ${subject}`
    return {
      answer: await answerIn(seen, context, requestKey, request.target),
      keep: (answer) => void keep(answer, place, seen, lookedAt, context)
    }
  }

  async function answerIn({ value, at }: Look, context: string, requestKey: string, target: string): Promise<StoredAnswer | undefined> {
    const plain = value === undefined ? undefined : open(key, value, context)
    const answer = plain === undefined ? undefined : await unpacked(plain, requestKey, target, options.maxEntryBytes)
    // from the tier's time to ours
    return answer === undefined ? undefined : { ...answer, arrivedAt: clock.now() - Math.max(0, at - answer.arrivedAt) }
  }

  async function keep(answer: StoredAnswer, place: Place, seen: Look, lookedAt: number, context: string): Promise<void> {
    const { control, lifetimeMs, body } = answer
    if (!isFreshOnArrival(answer) || (body.kind === 'bytes' && body.bytes.length > options.maxEntryBytes)) return
    const staleS = Math.max(control.staleIfErrorS ?? 0, control.staleWhileRevalidateS ?? 0)
    const staleMs = Math.max(staleS * 1000, options.staleIfError ?? DISCONNECTED_MS, options.staleWhileRevalidate)
    const leftMs = lifetimeMs - ageMsOf(answer, clock.now())
    if (leftMs < SHORTEST_MS) return
    const plain = await packed(answer, seen.at + (answer.arrivedAt - lookedAt))
    await tier.put(place, seen, seal(key, plain, context), leftMs + staleMs)
  }

  return { look, drop: (target) => tier.drop(scope, nameOf(`T${target}`)), dropAll: () => tier.dropAll(scope) }
}
