import type { Grant } from './grant.ts'

/** The client asks for itself (RFC 6749 §4.4): its authentication is all it takes. */
export const clientCredentials: Grant = {
  type: 'client_credentials',
  namesScope: true,
  async parameters() {
    return []
  }
}
