import { fieldList, keepFields, type Fields } from './fields.ts'

/**
 * What crosses the proxy and what does not (contract §3, RFC 9110 §7.6.1). Pure functions over fields; the exceptions an
 * operator lists under `pass` are the only way round them, and never reach the framing fields.
 */

/** Fields that belong to one connection, or that the next hop's framing decides anew. */
const CONNECTION_FIELDS = new Set(['connection', 'proxy-connection', 'keep-alive', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'http2-settings'])

/** Framing and routing are ours on both legs: `expect` has been answered by node before we see the request. */
const REQUEST_FRAMING = new Set([...CONNECTION_FIELDS, 'host', 'content-length', 'expect'])

const REQUEST_DENIED = new Set([
  // credentials: the provider must only ever see ours
  'authorization',
  'proxy-authorization',
  'proxy-authenticate',
  'cookie',
  'cookie2',
  'client-cert',
  'client-cert-chain',
  // claims about where the request came from or what it really is
  'forwarded',
  'x-http-method-override',
  'x-http-method',
  'x-method-override',
  'x-original-url',
  'x-original-uri',
  'x-rewrite-url',
  'origin',
  'baggage',
  // our own word to the provider replaces the app's
  'user-agent',
  'via'
])
const REQUEST_DENIED_PREFIXES = ['x-forwarded-', 'sec-', 'attache-']

const ANSWER_DENIED = new Set([
  // would act on `localhost`, where other apps of the developer live
  'set-cookie',
  'set-cookie2',
  'strict-transport-security',
  'public-key-pins',
  'alt-svc',
  'clear-site-data',
  'refresh',
  'timing-allow-origin',
  'service-worker-allowed',
  'report-to',
  'reporting-endpoints',
  'nel',
  // asks for proxy credentials nobody here has
  'proxy-authenticate',
  'proxy-authentication-info'
])
const ANSWER_DENIED_PREFIXES = ['access-control-', 'attache-']

export type RequestHygiene = {
  /** Names of fields set on every call (config `headers`, the credential's): the app's own spelling variants go. */
  readonly injected: readonly string[]
  /** Names let through although they are denied by default. */
  readonly pass: readonly string[]
  /** With `credential: none` the app's own `Authorization` is its business. */
  readonly keepAuthorization: boolean
}

/** Builds the filter for requests of one upstream: fields received to fields that may go on. */
export function requestCleaner(options: RequestHygiene): (fields: Fields) => string[] {
  const injected = new Set(options.injected.map(folded))
  const pass = new Set(options.pass.map((name) => name.toLowerCase()))
  if (options.keepAuthorization) pass.add('authorization')
  // Names recur: each spelling is judged once. Bounded, because the app chooses them.
  const verdicts = new Map<string, boolean>()

  function allowed(name: string): boolean {
    const plain = folded(name)
    if (REQUEST_FRAMING.has(plain) || injected.has(plain)) return false
    if (pass.has(name.toLowerCase())) return true
    return !REQUEST_DENIED.has(plain) && !REQUEST_DENIED_PREFIXES.some((prefix) => plain.startsWith(prefix))
  }

  return function clean(fields) {
    const named = connectionNamed(fields)
    return keepFields(fields, (name) => {
      let verdict = verdicts.get(name)
      if (verdict === undefined) {
        verdict = allowed(name)
        if (verdicts.size < 1000) verdicts.set(name, verdict)
      }
      return verdict && (named === undefined || !named.has(name.toLowerCase()))
    })
  }
}

/** Builds the filter for answers of one upstream. */
export function answerCleaner(options: { readonly pass: readonly string[] }): (fields: Fields) => string[] {
  const pass = new Set(options.pass.map((name) => name.toLowerCase()))
  const verdicts = new Map<string, boolean>()

  function allowed(name: string): boolean {
    const lower = name.toLowerCase()
    if (CONNECTION_FIELDS.has(lower)) return false
    if (pass.has(lower)) return true
    if (ANSWER_DENIED.has(lower)) return false
    return !ANSWER_DENIED_PREFIXES.some((prefix) => lower.startsWith(prefix))
  }

  return function clean(fields) {
    const named = connectionNamed(fields)
    return keepFields(fields, (name, value) => {
      let verdict = verdicts.get(name)
      if (verdict === undefined) {
        verdict = allowed(name)
        if (verdicts.size < 1000) verdicts.set(name, verdict)
      }
      if (!verdict || (named !== undefined && named.has(name.toLowerCase()))) return false
      // RFC 9209: the app must be able to trust that `Proxy-Status: attache` is ours
      return !(name.length === 12 && name.toLowerCase() === 'proxy-status' && /\battache\b/i.test(value))
    })
  }
}

/** Field names a `Connection` field declares to be for this hop only; undefined in the usual case that there are none. */
function connectionNamed(fields: Fields): Set<string> | undefined {
  const connection = fieldList(fields, 'connection')
  if (connection === undefined) return undefined
  const lower = connection.toLowerCase()
  if (lower === 'keep-alive' || lower === 'close') return undefined
  const names = lower
    .split(',')
    .map((name) => name.trim())
    // an app cannot have end-to-end framing of the answer removed by naming it
    .filter((name) => name !== '' && name !== 'keep-alive' && name !== 'close' && name !== 'content-length')
  return names.length === 0 ? undefined : new Set(names)
}

/** Servers that map header names to variables fold `_`, `.` and case: `X_Api_Key` is an alias of `X-Api-Key`. */
function folded(name: string): string {
  return name.toLowerCase().replaceAll(/[_.]/g, '-')
}
