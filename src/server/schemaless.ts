/**
 * Fastify's `schemaController` for servers none of whose routes has a schema: otherwise it loads two compilers for them
 * at start. The package does not even have them (`.ci/build.ts`).
 */
export const SCHEMALESS = {
  compilersFactory: {
    buildValidator: noSchemas,
    buildSerializer: noSchemas
  }
}

function noSchemas(): never {
  throw new Error('no route here has a schema')
}
