import type { Grant } from './grant.ts'

/** The code that a sign-in in the browser brought (RFC 6749 §4.1.3), with the proof that we began it (RFC 7636 §4.5). */
export function authorizationCode(code: string, redirectUri: string, verifier: string): Grant {
  return {
    type: 'authorization_code',
    namesScope: false,
    async parameters() {
      return [
        ['code', code],
        ['redirect_uri', redirectUri],
        ['code_verifier', verifier]
      ]
    }
  }
}
