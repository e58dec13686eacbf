import type { Clock } from '../exchange/clock.ts'
import { Problem } from '../exchange/problem.ts'
import { fingerprint } from '../exchange/secret.ts'
import { basicAuthorization } from './grants/basic.ts'
import { mtlsAuthorization } from './grants/mtls.ts'
import { staticAuthorization } from './grants/static.ts'
import { KeyError } from './key-error.ts'
import { assertValidNow } from './key-material.ts'
import { identityOf, type Material, type MaterialSource } from './material.ts'
import type { CredentialOptions } from './options.ts'
import type { Authorization, TokenSource } from './source.ts'

/** What the grants without a token put on every call. */
const FIXED_GRANTS = { static: staticAuthorization, basic: basicAuthorization, mtls: mtlsAuthorization, none: nothing } as const

export type FixedGrant = keyof typeof FIXED_GRANTS

export function isFixedGrant(grant: string): grant is FixedGrant {
  return Object.hasOwn(FIXED_GRANTS, grant)
}

/** A credential that needs no token service; follows its file when that changes. */
export function fixedSource(name: string, options: CredentialOptions & { readonly grant: FixedGrant }, materials: MaterialSource, clock: Clock): TokenSource {
  let madeOf: Material | undefined
  let made: Authorization | undefined
  let lastError: string | undefined

  function current(): Authorization {
    try {
      const material = materials.current()
      assertValidNow(material.key, options.expiresAt, clock.wallNow())
      if (made === undefined || madeOf !== material) {
        made = FIXED_GRANTS[options.grant](options, material)
        madeOf = material
      }
      lastError = undefined
      return made
    } catch (cause) {
      const why = cause instanceof KeyError ? cause.message : 'its secret cannot be read'
      lastError = why
      throw new Problem('credential-rejected', { detail: `credential ${name}: ${why}`, cause })
    }
  }

  return {
    name,
    grant: options.grant,
    identity: () => identityOf(name, materials),
    authorize: current,
    async rejected(_attempt, authorization) {
      try {
        // Worth one replay only where the secret has been replaced meanwhile.
        return current() !== authorization
      } catch {
        // It cannot be read now, which the next request is told: the provider's 401 is the answer to this one.
        return false
      }
    },
    status() {
      const value = made?.secrets[0]
      return {
        name,
        grant: options.grant,
        state: 'static',
        tokenRequests: 0,
        ...(value === undefined ? {} : { fingerprint: fingerprint(value) }),
        ...(lastError === undefined ? {} : { lastError })
      }
    },
    async close() {}
  }
}

function nothing(): Authorization {
  return { fields: [], query: undefined, clientCertificate: undefined, generation: 0, secrets: [] }
}
