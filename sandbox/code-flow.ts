import { createHash, randomBytes } from 'node:crypto'
import { json, type Answer, type Bench, type TokenRequest } from './call.ts'

export type CodeFlowOptions = {
  readonly clientId: string
  /** The scopes the client was approved for. */
  readonly scopes: readonly string[]
  readonly clauses: { readonly scope: string; readonly proof: string }
}

export type Consent = { readonly user: string; readonly scope: string }

export type CodeFlow = {
  /** The authorization endpoint: a user who always says yes. */
  authorize(request: TokenRequest): Answer
  /** Redeems a code once, undefined where it is no good. */
  redeem(form: URLSearchParams, at: number): Consent | undefined
}

type Code = { readonly challenge: string | undefined; readonly redirect: string; readonly scope: string; readonly until: number }

const CODE_LIFE_MS = 60_000
const MOST_CODES = 1000

/** Authorization code with PKCE (RFC 6749 §4.1, RFC 7636), redirects to loopback only (RFC 8252). */
export function codeFlow(options: CodeFlowOptions, bench: Bench): CodeFlow {
  const codes = new Map<string, Code>()
  return {
    authorize({ url, at }) {
      const asked = url.searchParams
      const redirect = asked.get('redirect_uri') ?? ''
      const scope = asked.get('scope') ?? ''
      if (asked.get('client_id') !== options.clientId || !isLoopback(redirect)) return json(400, { error: 'invalid_request' })
      const excess = scope.split(' ').find((each) => !options.scopes.includes(each))
      if (excess !== undefined) bench.note(options.clauses.scope, 'S1', options.clientId, `scope ${JSON.stringify(excess.slice(0, 40))} was never approved`)
      const challenge = asked.get('code_challenge') ?? undefined
      if (challenge === undefined || asked.get('code_challenge_method') !== 'S256')
        bench.note(options.clauses.proof, 'S2', options.clientId, 'no PKCE with S256')
      const code = randomBytes(24).toString('base64url')
      const oldest = codes.keys().next().value
      if (codes.size >= MOST_CODES && oldest !== undefined) codes.delete(oldest)
      codes.set(code, { challenge, redirect, scope, until: at + CODE_LIFE_MS })
      const members = { ...(excess === undefined ? { code } : { error: 'invalid_scope' }), ...(asked.has('state') ? { state: asked.get('state') ?? '' } : {}) }
      return asked.get('response_mode') === 'form_post' ? formPost(redirect, members) : redirection(redirect, members)
    },
    redeem(form, at) {
      const value = form.get('code') ?? ''
      const code = codes.get(value)
      codes.delete(value)
      if (code === undefined || at > code.until || code.redirect !== form.get('redirect_uri')) return undefined
      const proof = createHash('sha256')
        .update(form.get('code_verifier') ?? '')
        .digest('base64url')
      return code.challenge === undefined || code.challenge === proof ? { user: 'user-1', scope: code.scope } : undefined
    }
  }
}

function redirection(to: string, members: Record<string, string>): Answer {
  const url = new URL(to)
  for (const [name, value] of Object.entries(members)) url.searchParams.set(name, value)
  return { status: 302, fields: [['Location', url.href]] }
}

/** OAuth 2.0 Form Post Response Mode: the code comes as a cross-site POST. */
function formPost(to: string, members: Record<string, string>): Answer {
  const inputs = Object.entries(members).map(
    ([name, value]) => `<input type="hidden" name="${name}" value="${value.replaceAll(/[^\w.~-]/g, (sign) => `&#${sign.charCodeAt(0)};`)}">`
  )
  const body = `<!doctype html><body onload="document.forms[0].submit()"><form method="post" action="${new URL(to).href}">${inputs.join('')}</form></body>`
  return { status: 200, fields: [['Content-Type', 'text/html; charset=utf-8']], body }
}

function isLoopback(redirect: string): boolean {
  const url = URL.parse(redirect)
  return url !== null && url.protocol === 'http:' && ['127.0.0.1', 'localhost', '[::1]'].includes(url.hostname)
}
