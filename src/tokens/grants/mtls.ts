import { clientCertificateOf } from '../held.ts'
import { KeyError } from '../key-error.ts'
import type { Material } from '../material.ts'
import type { CredentialOptions } from '../options.ts'
import type { Authorization } from '../source.ts'

/** The connection itself is the proof (BankID, Swish): a client certificate on every call and no token. */
export function mtlsAuthorization(_options: CredentialOptions, material: Material): Authorization {
  const clientCertificate = clientCertificateOf(material)
  if (clientCertificate === undefined) throw new KeyError('key has no certificate with it: set certificate')
  return { fields: [], query: undefined, clientCertificate, generation: 0, secrets: [] }
}
