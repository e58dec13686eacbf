import { configured, type Grant } from './grant.ts'

/** A refresh token (RFC 6749 §6). No scope: the one granted at first stays. */
export const refreshToken: Grant = {
  type: 'refresh_token',
  namesScope: false,
  async parameters({ refreshToken }) {
    return [['refresh_token', configured(refreshToken, 'refreshToken')]]
  }
}
