import type { Signal } from '../exchange/signal.ts'
import { Problem } from '../exchange/problem.ts'
import { pathOf } from '../exchange/message.ts'
import { identityOf, type MaterialSource } from './material.ts'
import type { CredentialOptions } from './options.ts'
import type { AttemptTarget, TokenSource } from './source.ts'

/** Makes the source of a key when that is first seen. */
export type KeySources = {
  materialsOf(key: string): MaterialSource
  open(key: string, materials: MaterialSource): Promise<TokenSource>
}

type Entry = { readonly materials: MaterialSource; source: TokenSource | Promise<TokenSource> | undefined }

const STATES = ['latched', 'cooling', 'fetching', 'held', 'static', 'empty'] as const
const WAIT_FOR_A_VARIANT_MS = 60_000
const WAIT_FOR_A_TURN_MS = 1_000

/**
 * One credential that is many: a token per organisation, which is named by a segment of the path (`perKey: path[1]`).
 *
 * With variants only the listed keys are served, so that an app cannot make us log in for whatever it writes into a
 * path. At most `maxKeys` are held; of those at rest the one used longest ago makes room.
 */
export function byKey(name: string, options: CredentialOptions, make: KeySources): TokenSource {
  const segment = Number(/\d+/.exec(options.perKey ?? '')?.[0] ?? 0)
  const listed = new Set(Object.keys(options.variants))
  const entries = new Map<string, Entry>()

  function keyOf(target: string): string {
    return pathOf(target).split('/')[segment + 1] ?? ''
  }

  function entryOf(key: string): Entry {
    const known = entries.get(key)
    const entry = known ?? { materials: make.materialsOf(key), source: undefined }
    // Its place in the map tells when it was last used.
    if (known === undefined) makeRoom()
    else entries.delete(key)
    entries.set(key, entry)
    return entry
  }

  function makeRoom(): void {
    if (entries.size < options.maxKeys) return
    for (const [key, { source }] of entries) {
      if (source instanceof Promise || source?.status().state === 'fetching') continue
      entries.delete(key)
      void source?.close()
      return
    }
    throw new Problem('token-unavailable', { detail: `too many keys of credential ${name} at once`, retryAfterMs: WAIT_FOR_A_TURN_MS })
  }

  function isServed(key: string): boolean {
    return key !== '' && (listed.size === 0 || listed.has(key))
  }

  function sourceOf(key: string): TokenSource | Promise<TokenSource> {
    if (!isServed(key)) throw unknownKey()
    const entry = entryOf(key)
    entry.source ??= open(key, entry)
    return entry.source
  }

  async function open(key: string, entry: Entry): Promise<TokenSource> {
    const source = await make.open(key, entry.materials)
    entry.source = source
    return source
  }

  function opened(target: string): TokenSource | undefined {
    const source = entries.get(keyOf(target))?.source
    return source instanceof Promise ? undefined : source
  }

  function allOpened(): TokenSource[] {
    return [...entries.values()].flatMap(({ source }) => (source === undefined || source instanceof Promise ? [] : [source]))
  }

  function unknownKey(): Problem {
    return new Problem('token-unavailable', {
      detail: `credential ${name} has no variant for this path: list its segment ${segment} in credentials.${name}.variants`,
      retryAfterMs: WAIT_FOR_A_VARIANT_MS
    })
  }

  function authorize(attempt: AttemptTarget, signal: Signal): ReturnType<TokenSource['authorize']> {
    const source = sourceOf(keyOf(attempt.target))
    return source instanceof Promise ? source.then((ready) => ready.authorize(attempt, signal)) : source.authorize(attempt, signal)
  }

  return {
    name,
    grant: options.grant,
    identity(target) {
      const key = keyOf(target)
      // The key tells apart what one and the same credential sees in different organisations.
      return isServed(key) ? `${identityOf(name, entryOf(key).materials)}/${key}` : `unserved ${name}`
    },
    authorize,
    async rejected(attempt, authorization, response, signal) {
      return opened(attempt.target)?.rejected(attempt, authorization, response, signal) ?? false
    },
    answered(attempt, response) {
      opened(attempt.target)?.answered?.(attempt, response)
    },
    async renew() {
      await Promise.all(allOpened().map(async (source) => source.renew?.()))
    },
    status() {
      const all = allOpened().map((source) => source.status())
      const state = STATES.find((candidate) => all.some((one) => one.state === candidate)) ?? 'empty'
      const worst = all.find((one) => one.state === state)
      return { ...worst, name, grant: options.grant, state, tokenRequests: all.reduce((sum, one) => sum + one.tokenRequests, 0) }
    },
    async close() {
      await Promise.all(allOpened().map((source) => source.close()))
    }
  }
}
