import type { UpstreamTools } from '../../exchange/tools.ts'
import type { SecondTier } from '../../state/second-tier.ts'
import type { Store } from '../../state/store.ts'

/** What the cache of one upstream is handed besides its options. */
export type CacheTools = UpstreamTools & {
  readonly store: Store
  /** Where answers are shared if `secondTier` says so, how they are sealed there, and what only equals may share: all that decides answers. */
  readonly secondTier?: SecondTier | undefined
  readonly sealKey: Buffer
  readonly scope: string
  /** How long a thing just announced by a 201 or 202 may be missing without that being news. */
  readonly settleMs: number
  /** The upstream's base URL: which references in answers are on the provider's own host. */
  readonly baseUrl?: string
  /** The identity of the credential that would serve this target; part of every key. */
  readonly identityOf: (credential: string | undefined, target: string) => string
}
