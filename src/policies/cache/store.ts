import { LRUCache } from 'lru-cache'
import type { Fields } from '../../http/fields.ts'
import { selects } from '../../http/vary.ts'
import type { StoredAnswer } from './answer.ts'

/** Answers in memory, least recently used ones go first; knows nothing of HTTP but how a variant is selected. */
export type AnswerStore = {
  /** The answer this request selects among those under the key; the most recent by `Date` where several fit (RFC 9111 §4). */
  find(key: string, fields: Fields): StoredAnswer | undefined
  /** All answers under the key, newest first. */
  variants(key: string): readonly StoredAnswer[]
  /** Stores an answer in place of those it supersedes: the ones the request that brought it would have selected. */
  put(answer: StoredAnswer, fields: Fields): void
  /** Puts an updated answer in the place of the old one, where that is still there. */
  replace(old: StoredAnswer, updated: StoredAnswer): void
  drop(answer: StoredAnswer): void
  /** Drops everything under the key, which is about this target. */
  dropKey(key: string, target: string): void
  /** Drops every answer for the target, whoever it was for. */
  dropTarget(target: string): number
  /** Drops every answer whose target begins with the prefix. */
  purge(prefix: string): number
  readonly bytes: number
  readonly entries: number
  /** Answers that had to make room since this was last read. */
  takeEvictions(): number
}

/** One key's variants. Replaced as a whole, so that the sizes stay right. */
type Shelf = { readonly target: string; readonly answers: readonly StoredAnswer[] }

// More variants of one resource than this come from a caller that varies on purpose.
const VARIANTS = 32

/**
 * A store of at most `maxBytes`, estimated with all overhead. `outdated` is told the target of what `drop` and `dropKey` take
 * out: nobody else may use it any more either.
 */
export function answerStore(maxBytes: number, outdated?: (target: string) => void): AnswerStore {
  let entries = 0
  let evictions = 0
  // which keys hold answers for a target: unsafe methods invalidate the URI for every identity
  const keysOf = new Map<string, readonly string[]>()

  const shelves = new LRUCache<string, Shelf>({
    maxSize: Math.max(1, maxBytes),
    sizeCalculation: (shelf) => sizeOf(shelf.answers),
    dispose(shelf, key, reason) {
      entries -= shelf.answers.length
      if (reason === 'evict') evictions += shelf.answers.length
      // replaced by a new version of itself
      if (reason === 'set') return
      const rest = (keysOf.get(shelf.target) ?? []).filter((other) => other !== key)
      if (rest.length === 0) keysOf.delete(shelf.target)
      else keysOf.set(shelf.target, rest)
    }
  })

  function find(key: string, fields: Fields): StoredAnswer | undefined {
    const shelf = shelves.get(key)
    if (shelf === undefined) return undefined
    let found: StoredAnswer | undefined
    for (const answer of shelf.answers) {
      if (!selects(fields, answer.selecting, answer.language)) continue
      if (found === undefined || answer.validators.dateMs > found.validators.dateMs) found = answer
    }
    return found
  }

  function fill(key: string, target: string, wanted: readonly StoredAnswer[]): void {
    const answers = fitting(wanted, maxBytes)
    if (answers.length === 0) {
      shelves.delete(key)
      return
    }
    // counted before, because making room may dispose of this very shelf
    entries += answers.length
    const keys = keysOf.get(target) ?? []
    if (!keys.includes(key)) keysOf.set(target, [...keys, key])
    shelves.set(key, { target, answers })
  }

  function put(answer: StoredAnswer, fields: Fields): void {
    const { key, target } = answer
    const others = (shelves.peek(key)?.answers ?? []).filter(
      (other) => !selects(fields, other.selecting, undefined) && (other.isNegotiated || !answer.isNegotiated)
    )
    fill(key, target, [answer, ...others.slice(0, VARIANTS - 1)])
  }

  function replace(old: StoredAnswer, updated: StoredAnswer): void {
    const answers = shelves.peek(old.key)?.answers ?? []
    if (answers.includes(old)) fill(old.key, old.target, [updated, ...answers.filter((answer) => answer !== old)])
  }

  function drop(answer: StoredAnswer): void {
    outdated?.(answer.target)
    const answers = shelves.peek(answer.key)?.answers ?? []
    if (!answers.includes(answer)) return
    const rest = answers.filter((other) => other !== answer)
    fill(answer.key, answer.target, rest)
  }

  function dropTarget(target: string): number {
    const before = entries
    for (const key of keysOf.get(target) ?? []) shelves.delete(key)
    return before - entries
  }

  function purge(prefix: string): number {
    let dropped = 0
    for (const target of keysOf.keys()) if (target.startsWith(prefix)) dropped += dropTarget(target)
    return dropped
  }

  return {
    find,
    variants: (key) => shelves.peek(key)?.answers ?? [],
    put,
    replace,
    drop,
    dropKey(key, target) {
      shelves.delete(key)
      outdated?.(target)
    },
    dropTarget,
    purge,
    get bytes() {
      return shelves.calculatedSize
    },
    get entries() {
      return entries
    },
    takeEvictions() {
      const taken = evictions
      evictions = 0
      return taken
    }
  }
}

function sizeOf(answers: readonly StoredAnswer[]): number {
  return answers.reduce((sum, answer) => sum + answer.sizeBytes, 0)
}

// The newest come first; a single key must not hold more than the whole store may.
function fitting(answers: readonly StoredAnswer[], maxBytes: number): readonly StoredAnswer[] {
  let fit = answers
  while (fit.length > 0 && sizeOf(fit) > maxBytes) fit = fit.slice(0, -1)
  return fit
}
