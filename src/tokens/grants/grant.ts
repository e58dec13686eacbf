import type { CredentialOptions } from '../options.ts'
import type { Material } from '../material.ts'

/** What a grant may put into a token request, besides scope, extra parameters and client authentication. */
export type GrantContext = {
  readonly options: CredentialOptions
  readonly material: Material
  /** The refresh token to present, for that grant only. */
  readonly refreshToken: string | undefined
  /** Signs a fresh assertion with the credential's key, these claims in it. */
  sign(claims: Readonly<Record<string, unknown>>): Promise<string>
}

/** One way to ask for a token: its name on the wire and its parameters, made anew for every attempt. */
export type Grant = {
  readonly type: string
  /** Whether the scope is asked for in a parameter. */
  readonly namesScope: boolean
  parameters(context: GrantContext): Promise<readonly (readonly [string, string])[]>
  /** When what the token is issued for ends by itself (calendar time, epoch milliseconds): the token must not outlive it. */
  endsAt?(material: Material): number | undefined
}

/** A value that `checkCredential` has seen to be configured. */
export function configured(value: string | undefined, key: string): string {
  if (value === undefined) throw new TypeError(`${key} is not configured`)
  return value
}
