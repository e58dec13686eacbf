import { clientCredentials } from './client-credentials.ts'
import type { Grant } from './grant.ts'
import { jwtBearer } from './jwt-bearer.ts'
import { password } from './password.ts'
import { refreshToken } from './refresh-token.ts'
import { tokenExchange } from './token-exchange.ts'

/** The grants that ask a token service; a new one is a file and a line here. */
export const TOKEN_GRANTS = {
  client_credentials: clientCredentials,
  password,
  refresh_token: refreshToken,
  jwt_bearer: jwtBearer,
  token_exchange: tokenExchange
} as const satisfies Record<string, Grant>

export type TokenGrant = keyof typeof TOKEN_GRANTS

export function isTokenGrant(grant: string): grant is TokenGrant {
  return Object.hasOwn(TOKEN_GRANTS, grant)
}
