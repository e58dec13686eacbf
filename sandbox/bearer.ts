import { empty, field, fieldLines, type Answer, type ApiRequest, type Bench, type Caller, type Fields } from './call.ts'
import type { TokenBook } from './tokens.ts'

/** Which clauses a call without a valid token breaks. */
export type BearerClauses = {
  /** No token at all, or a field nobody can read. */
  readonly missing: string
  /** A token whose time was over. */
  readonly expired: string
  /** A credential where logs would keep it. */
  readonly exposed: string
}

type Complaint = 'missing' | 'unknown' | 'expired' | 'revoked'

/** RFC 6750: exactly one `Authorization: Bearer`, never in the query, of a token that is known and still alive. */
export function bearer(tokens: TokenBook, bench: Bench, clauses: BearerClauses) {
  const unauthorized = challenges()
  return function authenticate(request: ApiRequest): Caller {
    if (/[?&]access_token=/.test(request.target)) bench.note(clauses.exposed, 'S1', 'unknown', 'an access token in the query')
    const lines = fieldLines(request.fields, 'authorization')
    const value = lines.length === 1 ? /^bearer +([\w.~+/=-]+)$/i.exec(lines[0] ?? '')?.[1] : undefined
    if (value === undefined) {
      bench.note(clauses.missing, 'S1', 'unknown', lines.length > 1 ? 'more than one Authorization' : 'a call without a bearer token')
      return { client: 'unknown', token: undefined, refusal: unauthorized('missing') }
    }
    const token = tokens.find(value)
    if (token === undefined) {
      bench.note(clauses.missing, 'S1', 'unknown', 'a bearer token this provider never issued')
      return { client: 'unknown', token: undefined, refusal: unauthorized('unknown') }
    }
    if (request.at >= token.expiresAt) {
      // a call sent in time may arrive late
      if (request.at > token.expiresAt + bench.slackMs) bench.note(clauses.expired, 'S1', token.client, `token ${token.fingerprint} had expired`)
      return { client: token.client, token, refusal: unauthorized('expired') }
    }
    return { client: token.client, token, refusal: token.revoked ? unauthorized('revoked') : undefined }
  }
}

/** 401 has no body; its challenge comes in the shapes seen in the wild, so that nobody relies on one of them. */
function challenges(): (complaint: Complaint) => Answer {
  const shapes: Fields[] = [
    [['WWW-Authenticate', 'Bearer error="invalid_token", error_description="The token is expired"']],
    [],
    [['WWW-Authenticate', 'DPoP algs="ES256 PS256", Bearer realm="api, v2", error="invalid_token"']],
    [['WWW-Authenticate', 'bearer Error="invalid_token",error_description="Tokenet er tilbakekalt"']]
  ]
  let next = 0
  return function unauthorized(complaint) {
    if (complaint === 'missing') return empty(401, [['WWW-Authenticate', 'Bearer']])
    if (complaint === 'expired') return empty(401, shapes[0])
    return empty(401, shapes[next++ % shapes.length])
  }
}

/** `S4-TenantId` and its like: a field that has to be there exactly once. Gives its value where it is. */
export function requiredOnce(name: string, clause: string, bench: Bench, request: ApiRequest, client: string): string | undefined {
  const lines = fieldLines(request.fields, name.toLowerCase())
  if (lines.length !== 1) bench.note(clause, 'S1', client, lines.length === 0 ? `${name} is missing` : `${name} is there ${lines.length} times`)
  return lines.length === 1 ? field(request.fields, name.toLowerCase()) : undefined
}
