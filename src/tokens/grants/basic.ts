import type { Material } from '../material.ts'
import type { CredentialOptions } from '../options.ts'
import type { Authorization } from '../source.ts'
import { configured } from './grant.ts'

/** User name and password on every call (RFC 7617), in UTF-8. */
export function basicAuthorization(_options: CredentialOptions, material: Material): Authorization {
  const password = configured(material.password, 'password')
  const encoded = Buffer.from(`${configured(material.username, 'username')}:${password}`, 'utf8').toString('base64')
  return { fields: ['Authorization', `Basic ${encoded}`], query: undefined, clientCertificate: undefined, generation: 0, secrets: [encoded, password] }
}
