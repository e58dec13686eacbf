import { decodeJwt } from 'jose'
import { configured, type Grant } from './grant.ts'

/** Exchanges one token for another (RFC 8693 §2.1); audience and resource come with the extra parameters. */
export const tokenExchange: Grant = {
  type: 'urn:ietf:params:oauth:grant-type:token-exchange',
  namesScope: true,
  async parameters({ material, options }) {
    return [
      ['subject_token', configured(material.subjectToken, 'subjectToken')],
      ['subject_token_type', options.subjectTokenType]
    ]
  },
  endsAt({ subjectToken }) {
    try {
      const { exp } = decodeJwt(configured(subjectToken, 'subjectToken'))
      return exp === undefined ? undefined : exp * 1000
    } catch {
      // No JWT: only its issuer knows how long it lasts.
      return undefined
    }
  }
}
