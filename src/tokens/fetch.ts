import type { Fields } from '../http/fields.ts'

/** How the connection to the token service is made; all of it verified TLS, or loopback. */
export type FetchOptions = {
  readonly method: 'GET' | 'POST'
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string
  /** PEM certificates trusted instead of the well-known authorities. */
  readonly ca?: string
  /** A client certificate (RFC 8705), both PEM. */
  readonly certificate?: { readonly cert: string; readonly key: string }
  /** Ends the attempt: its own, never a caller's. */
  readonly signal: AbortSignal
}

/** The whole answer: bounded, undecoded, redirects not followed. */
export type FetchAnswer = { readonly status: number; readonly fields: Fields; readonly text: string }

/** Sends one request to a token service. Rejects with `FetchFailure` and nothing else. */
export type TokenFetch = (url: string, options: FetchOptions) => Promise<FetchAnswer>

/** No answer, or none that can be read. */
export class FetchFailure extends Error {
  /** Whether the request may have reached the service: a one-time token in it may be used up. */
  readonly sent: boolean

  constructor(message: string, sent: boolean, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'FetchFailure'
    this.sent = sent
  }
}
