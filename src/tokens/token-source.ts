import type { Tools } from '../exchange/tools.ts'
import type { Store } from '../state/store.ts'
import { tokenEndpoint } from './endpoint.ts'
import type { TokenFetch } from './fetch.ts'
import type { TokenGrant } from './grants/registry.ts'
import { tokenManager } from './manager.ts'
import { identityOf, type MaterialSource } from './material.ts'
import type { CredentialOptions } from './options.ts'
import { renewal } from './renewal.ts'
import type { TokenSource } from './source.ts'

/** What a source of tokens needs besides time, chance and a place to report. */
export type SourceTools = Tools & {
  readonly store: Store
  /** For `User-Agent`. */
  readonly version: string
  /** Sends token requests; lives in `transport/token-fetch.ts`, because only that room knows the network. */
  readonly tokenFetch: TokenFetch
}

/** A credential with a token service; `options` are those of its variant already. Knows at once what the store remembers. */
export async function tokenSource(
  name: string,
  options: CredentialOptions & { readonly grant: TokenGrant },
  materials: MaterialSource,
  tools: SourceTools
): Promise<TokenSource> {
  let tokenRequests = 0
  const warn = (message: string): void => tools.report({ kind: 'warning', about: `credential ${name}`, message })
  const endpoint = tokenEndpoint(options, { ...tools, warn })
  const onRequest = (): void => void (tokenRequests += 1)
  const manager = tokenManager(name, options, { ...tools, materials, renewal: renewal(name, options, { ...tools, endpoint, materials, onRequest }) })
  await manager.recall()
  return {
    name,
    grant: options.grant,
    identity: () => identityOf(name, materials),
    authorize: manager.authorize,
    rejected: manager.rejected,
    answered: manager.answered,
    renew: manager.renew,
    status: () => ({ name, grant: options.grant, tokenRequests, ...manager.status() }),
    close: manager.close
  }
}
