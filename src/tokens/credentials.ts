import type { Tools } from '../exchange/tools.ts'
import type { Store } from '../state/store.ts'
import type { TokenFetch } from './fetch.ts'
import type { CredentialOptions } from './options.ts'
import type { Credentials } from './source.ts'

// The schema is part of this room's door, as every room's is; it lives in a file of its own for its length.
export { checkCredential } from './check.ts'
export { credentialOptions, type CredentialOptions } from './options.ts'

/** What the credentials need besides time, chance and a place to report. */
export type CredentialTools = Tools & {
  readonly store: Store
  /** For `User-Agent`. */
  readonly version: string
  /** Sends token requests; lives in `transport/token-fetch.ts`, because only that room knows the network. */
  readonly tokenFetch: TokenFetch
}

/** Makes every credential of the config ready for use, with what the store remembers of its tokens. */
export async function openCredentials(_options: Readonly<Record<string, CredentialOptions>>, _tools: CredentialTools): Promise<Credentials> {
  return { get: () => undefined, all: () => [], close: async () => {} }
}
