/** The little of oidc-provider that the tests use; the package brings no types. */
declare module 'oidc-provider' {
  import type { IncomingMessage, RequestListener } from 'node:http'

  type Context = { readonly req: IncomingMessage }
  type Client = { readonly clientId: string }
  type Saved = { save(): Promise<string> }

  export class Provider {
    constructor(issuer: string, configuration: Readonly<Record<string, unknown>>)
    callback(): RequestListener
    on(event: string, listener: (context: Context, detail: unknown) => void): this
    readonly Client: { find(id: string): Promise<Client | undefined> }
    readonly Grant: new (properties: { accountId: string; clientId: string }) => Saved & { addOIDCScope(scope: string): void }
    readonly RefreshToken: new (properties: Readonly<Record<string, unknown>>) => Saved
  }
}
