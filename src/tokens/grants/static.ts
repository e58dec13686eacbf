import { KeyError } from '../key-error.ts'
import type { Material } from '../material.ts'
import type { CredentialOptions } from '../options.ts'
import type { Authorization } from '../source.ts'
import { configured } from './grant.ts'

/** A key that never changes hands for a token: in a header field, or in the query for providers that insist. */
export function staticAuthorization(options: CredentialOptions, material: Material): Authorization {
  const value = configured(material.value, 'value')
  if (options.query !== undefined) {
    const encoded = encodeURIComponent(value)
    return { fields: [], query: `${options.query}=${encoded}`, clientCertificate: undefined, generation: 0, secrets: [value, encoded] }
  }
  const text = options.prefix + value
  // One line end would make two header fields of it.
  if (!/^[\x20-\x7e\x80-\xff]*$/.test(text)) throw new KeyError('value has characters that no header field may have')
  return {
    fields: [configured(options.header, 'header'), text],
    query: undefined,
    clientCertificate: undefined,
    generation: 0,
    secrets: [value, ...withoutScheme(value)]
  }
}

/** `Bearer abc` is a secret because of `abc`, which alone would do harm as well (RFC 9110 §11.4). */
function withoutScheme(value: string): string[] {
  const [, token] = /^[A-Za-z][\w-]* +(\S+)$/.exec(value) ?? []
  return token === undefined ? [] : [token]
}
