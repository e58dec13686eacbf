import { byKey } from './by-key.ts'
import { fixedSource, isFixedGrant } from './fixed-source.ts'
import { isTokenGrant } from './grants/registry.ts'
import { materialSource, withVariant, type MaterialSource } from './material.ts'
import type { CredentialOptions } from './options.ts'
import type { Credentials, CredentialStatus, TokenSource } from './source.ts'
import { tokenSource, type SourceTools } from './token-source.ts'

// The schema is part of this room's door, as every room's is; it lives in a file of its own for its length.
export { checkCredential } from './check.ts'
export { credentialOptions, type CredentialOptions } from './options.ts'

export type CredentialTools = SourceTools

/**
 * Makes every credential of the config ready for use, with what the store remembers of its tokens. Sends nothing. A key
 * that cannot be read is a `warning` and a local problem when it is needed, since its file may be put right meanwhile.
 */
export async function openCredentials(options: Readonly<Record<string, CredentialOptions>>, tools: CredentialTools): Promise<Credentials> {
  const sources = new Map<string, TokenSource>()
  await Promise.all(Object.entries(options).map(async ([name, one]) => sources.set(name, await open(name, one, tools))))
  return {
    get: (name) => sources.get(name),
    all: () => [...sources.values()],
    async close() {
      await Promise.all([...sources.values()].map((source) => source.close()))
    }
  }
}

async function open(name: string, options: CredentialOptions, tools: CredentialTools): Promise<TokenSource> {
  const materialsOf = (key: string | undefined): MaterialSource => watched(name, options, materialSource(options, tools.clock, key), tools)
  if (options.perKey === undefined) return openOne(name, options, materialsOf(undefined), tools, undefined)
  return byKey(name, options, { materialsOf, open: (key, materials) => openOne(name, options, materials, tools, key) })
}

async function openOne(
  name: string,
  options: CredentialOptions,
  materials: MaterialSource,
  tools: CredentialTools,
  key: string | undefined
): Promise<TokenSource> {
  const { grant, ...rest } = withVariant(options, key)
  const source = isTokenGrant(grant)
    ? await tokenSource(name, { ...rest, grant }, materials, tools)
    : isFixedGrant(grant)
      ? fixedSource(name, { ...rest, grant }, materials, tools.clock)
      : undefined
  if (source === undefined) throw new TypeError(`no such grant: ${grant}`)
  return { ...source, status: () => withExpiry(source.status(), materials, options) }
}

/** Reports when the key ends, as soon as it is known and whenever it has been replaced. */
function watched(name: string, options: CredentialOptions, materials: MaterialSource, tools: CredentialTools): MaterialSource {
  let reported: number | undefined
  return {
    current() {
      const material = materials.current()
      const expiresAt = material.key?.notAfter ?? options.expiresAt
      if (expiresAt !== undefined && expiresAt !== reported) {
        reported = expiresAt
        tools.report({ kind: 'credential-expiry', credential: name, expiresAt })
      }
      return material
    }
  }
}

function withExpiry(status: CredentialStatus, materials: MaterialSource, options: CredentialOptions): CredentialStatus {
  try {
    const credentialExpiresAt = materials.current().key?.notAfter ?? options.expiresAt
    return credentialExpiresAt === undefined ? status : { ...status, credentialExpiresAt }
  } catch {
    // The status says so already: the key cannot be read.
    return status
  }
}
