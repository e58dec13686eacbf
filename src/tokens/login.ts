import type { CredentialOptions } from './options.ts'
import { beginSignIn, SignInError, type SignIn } from './sign-in.ts'
import type { SourceTools } from './token-source.ts'

/** What the browser is told when it comes back: a status and one sentence. */
export type BrowserReply = { readonly status: number; readonly text: string }

/** A place on loopback where the browser comes back to (RFC 8252 §7.3). */
export type Redirect = {
  /** As the token service has to be told, with the port in use. */
  readonly uri: string
  /** Lets replies under way reach the browser, then is gone. */
  close(): Promise<void>
}

/**
 * Opens that place; lives in `server/redirect.ts`, because only that room listens. `receive` gets the parameters of every
 * response (query or form) and never rejects. Rejects with `SignInError` where the port is not free.
 */
export type OpenRedirect = (uri: string, port: number | undefined, receive: (response: URLSearchParams) => Promise<BrowserReply>) => Promise<Redirect>

export type LoginWish = {
  /** Whose token, for a credential with `perKey`. */
  readonly key?: string | undefined
  /** In place of the one in `redirectUri`. */
  readonly port?: number | undefined
  /** Real milliseconds the person has. */
  readonly timeoutMs: number
}

export type LoginTools = SourceTools & {
  readonly openRedirect: OpenRedirect
  /** Tells the person where to go. */
  show(url: string, redirectUri: string): void
  /** Tells the person that something came back which was not theirs. */
  turnedAway(why: string): void
}

/**
 * Signs a person in for a `refresh_token` credential, and keeps the refresh token where the credential's manager looks
 * for it. Whatever comes back that is not ours is turned away and waited on: any page can send the browser here.
 *
 * Rejects with `SignInError`: declined, refused, too late, port not free, no refresh token.
 */
export async function login(name: string, options: CredentialOptions, wish: LoginWish, tools: LoginTools): Promise<void> {
  const { promise: over, resolve, reject } = Promise.withResolvers<void>()
  let phase: { kind: 'preparing' } | { kind: 'waiting'; signIn: SignIn } | { kind: 'finishing' } = { kind: 'preparing' }

  async function receive(response: URLSearchParams): Promise<BrowserReply> {
    if (phase.kind !== 'waiting') return { status: 409, text: 'This sign-in is not waited for, or over already.' }
    const { signIn } = phase
    phase = { kind: 'finishing' }
    try {
      await signIn.finish(response)
      resolve()
      return { status: 200, text: 'Signed in. You may close this window.' }
    } catch (error) {
      if (!(error instanceof SignInError && error.isForeign)) {
        reject(error)
        return { status: 400, text: 'This did not work; the terminal tells why.' }
      }
      phase = { kind: 'waiting', signIn }
      tools.turnedAway(error.message)
      return { status: 400, text: 'This does not belong to the sign-in that is waited for.' }
    }
  }

  const redirect = await tools.openRedirect(options.redirectUri, wish.port, receive)
  try {
    const signIn = await beginSignIn(name, options, { redirectUri: redirect.uri, key: wish.key }, tools)
    phase = { kind: 'waiting', signIn }
    tools.show(signIn.url, redirect.uri)
    // The person is not rehearsed: their time is real.
    const timer = tools.clock.after(wish.timeoutMs / tools.clock.realMs(1), () => {
      // a code that has come back is not thrown away
      if (phase.kind === 'waiting') reject(new SignInError(`nobody signed in within ${Math.round(wish.timeoutMs / 1000)} seconds`))
    })
    await over.finally(() => timer.cancel())
  } finally {
    await redirect.close()
  }
}
