import type { Clock } from '../exchange/clock.ts'
import type { ClientCertificate } from '../exchange/message.ts'
import { fingerprint } from '../exchange/secret.ts'
import type { DpopProver } from './dpop.ts'
import { expiresAt, renewableAt } from './frugality.ts'
import { certificateThumbprint, tlsIdentity } from './key-material.ts'
import type { Material } from './material.ts'
import type { CredentialOptions } from './options.ts'
import type { StoredToken } from './record.ts'
import type { AttemptTarget, Authorization } from './source.ts'

/** A token in use, with all that every request would otherwise have to work out. */
export type Held = {
  readonly token: StoredToken
  /** Grows with every token this process takes up. */
  readonly generation: number
  readonly fingerprint: string
  readonly expiresAt: number
  readonly renewableAt: number
  /** Of the credential as it was then. */
  readonly identity: string
  readonly dpop: DpopProver | undefined
  /** The same object for every request; complete but for a DPoP proof. */
  readonly authorization: Authorization
  /** Whether any request has used it. */
  used: boolean
}

export function heldOf(
  found: { readonly token: StoredToken; readonly material: Material; readonly dpop: DpopProver | undefined },
  generation: number,
  options: CredentialOptions,
  now: number
): Held {
  const { token, material, dpop } = found
  const bound = options.clientAuth?.endsWith('tls_client_auth') ?? false
  return {
    token,
    generation,
    fingerprint: fingerprint(token.value),
    expiresAt: expiresAt(token, now),
    renewableAt: renewableAt(token, options),
    identity: material.identity,
    dpop: token.scheme === 'DPoP' ? dpop : undefined,
    authorization: {
      fields: ['Authorization', `${token.scheme} ${token.value}`],
      query: undefined,
      clientCertificate: bound ? clientCertificateOf(material) : undefined,
      generation,
      secrets: [token.value]
    },
    used: false
  }
}

/** The token made ready for one request: at once, unless it takes a proof of its own (RFC 9449 §7). */
export function authorizationOf(held: Held, attempt: AttemptTarget, clock: Pick<Clock, 'wallNow'>): Authorization | Promise<Authorization> {
  if (held.dpop === undefined) return held.authorization
  const { authorization, token } = held
  return held.dpop
    .prove(attempt.method, attempt.url, clock.wallNow(), token.value)
    .then((proof) => ({ ...authorization, fields: [...authorization.fields, 'DPoP', proof] }))
}

/** The credential's certificate for a connection to the provider; `id` changes with it. */
export function clientCertificateOf(material: Material): ClientCertificate | undefined {
  const own = material.key?.certificates[0]
  if (material.key === undefined || own === undefined) return undefined
  return { id: certificateThumbprint(own, 'sha256'), ...tlsIdentity(material.key) }
}
