import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { isProblem, Problem } from '../../exchange/problem.ts'
import { Secret, type SecretSource } from '../../exchange/secret.ts'
import { memoryStore } from '../../state/memory.ts'
import { openCredentials, type CredentialOptions, type CredentialTools } from '../credentials.ts'

export type Proof = { readonly kind: 'granted' } | { readonly kind: 'refused'; readonly reason: string }

/**
 * Asks the token service for one token as the credential, but with the key in `folder`: whether the provider knows it.
 *
 * The token is thrown away and nothing of the running sidecar is touched: its held token stays. Takes as long as the
 * credential's `timeout`.
 */
export async function proveKey(name: string, options: CredentialOptions, folder: string, tools: Omit<CredentialTools, 'store'>): Promise<Proof> {
  const { keyPassphrase: _passphrase, ...others } = options
  const proved: CredentialOptions = {
    ...others,
    key: fixed(join(folder, 'key.pem')),
    certificate: fixed(join(folder, 'certificate.pem')),
    renew: 'on_demand'
  }
  if (options.grant === 'refresh_token') {
    return { kind: 'refused', reason: 'proving would use up a refresh token; see that the provider knows the key, then say --proven' }
  }
  let lastReason: string | undefined
  const report: CredentialTools['report'] = (event) => {
    if (event.kind === 'token-request' && event.detail !== undefined) lastReason = event.detail
  }
  const patience = new AbortController()
  const timer = tools.clock.after(2 * options.timeout, () => patience.abort(new Problem('token-unavailable')))
  const credentials = await openCredentials({ [name]: proved }, { ...tools, report, store: memoryStore(tools) })
  try {
    const source = credentials.get(name)
    if (source === undefined) return { kind: 'refused', reason: 'this credential cannot be opened' }
    const authorization = await source.authorize({ method: 'GET', url: 'http://localhost/', target: '/' }, patience.signal)
    if (authorization.generation > 0) return { kind: 'granted' }
    return { kind: 'refused', reason: 'this credential asks for no token, so nothing can be proven with it' }
  } catch (error) {
    if (!isProblem(error)) throw error
    const isTold = lastReason === undefined || error.message.endsWith(lastReason)
    return { kind: 'refused', reason: isTold ? error.message : `${error.message}: ${lastReason}` }
  } finally {
    timer.cancel()
    await credentials.close()
  }
}

function fixed(path: string): SecretSource {
  const secret = new Secret(readFileSync(path, 'utf8'))
  return { reference: `file:${path}`, read: () => secret }
}
