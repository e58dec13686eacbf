import type { Grant } from './grant.ts'

/**
 * A signed assertion as the grant itself (RFC 7523 §2.1): Maskinporten, Google, Salesforce. The scope is a claim for the
 * first two and a parameter in the RFC; each ignores the other's.
 */
export const jwtBearer: Grant = {
  type: 'urn:ietf:params:oauth:grant-type:jwt-bearer',
  namesScope: true,
  async parameters({ material, sign }) {
    return [['assertion', await sign(material.scope === undefined ? {} : { scope: material.scope })]]
  }
}
