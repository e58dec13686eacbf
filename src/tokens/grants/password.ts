import { configured, type Grant } from './grant.ts'

/**
 * A user's name and password (RFC 6749 §4.3), for the providers that still want it. Every such login opens a session over
 * there, so the refresh token that comes with it is used first.
 */
export const password: Grant = {
  type: 'password',
  namesScope: true,
  async parameters({ material }) {
    return [
      ['username', configured(material.username, 'username')],
      ['password', configured(material.password, 'password')]
    ]
  }
}
