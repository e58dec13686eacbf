import { fieldValues, type Fields } from '../http/fields.ts'

/**
 * The `error` of the first Bearer or DPoP challenge (RFC 6750 §3, RFC 9449 §7.1), undefined where none names one.
 * Schemes and names in any case, several challenges in one field or in several; what cannot be read names no error.
 */
export function challengeError(fields: Fields): string | undefined {
  for (const value of fieldValues(fields, 'www-authenticate')) {
    let ours = false
    for (const { scheme, name, text } of parts(value)) {
      if (scheme !== undefined) ours = scheme === 'bearer' || scheme === 'dpop'
      if (ours && name === 'error' && text !== undefined) return text
    }
  }
  return undefined
}

/** Whether another token can help: not where the provider says that it is not about the token (RFC 6750 §3.1). */
export function isAboutTheToken(fields: Fields): boolean {
  const error = challengeError(fields)
  return error === undefined || error === 'invalid_token' || error === 'use_dpop_nonce' || error === 'invalid_dpop_proof'
}

type Part = { scheme?: string; name?: string; text?: string }

// challenge = scheme [ 1*SP ( token68 / #auth-param ) ] (RFC 9110 §11.3): a word followed by "=" is a parameter, else a scheme
const PART = /([!#$%&'*+\-.^_`|~0-9A-Za-z]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([!#$%&'*+\-.^_`|~0-9A-Za-z]+)))?/g
const LONGEST_CHALLENGE = 4096

function* parts(value: string): Generator<Part> {
  for (const [, word = '', quoted, bare] of value.slice(0, LONGEST_CHALLENGE).matchAll(PART)) {
    if (quoted === undefined && bare === undefined) yield { scheme: word.toLowerCase() }
    else yield { name: word.toLowerCase(), text: quoted === undefined ? (bare ?? '') : quoted.replaceAll(/\\(.)/g, '$1') }
  }
}
