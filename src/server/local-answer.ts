import type { Response } from '../exchange/message.ts'
import { PROBLEMS, Problem, type ProblemCode } from '../exchange/problem.ts'

/** Without better knowledge, asking again makes sense after this long. */
const RETRY_AFTER_DEFAULT_MS: Partial<Record<ProblemCode, number>> = { 'token-unavailable': 10_000, 'credential-rejected': 300_000, draining: 5_000 }

/**
 * Turns a problem into the answer the app sees (RFC 9457), marked as ours (RFC 9209): the one place where errors become
 * answers. Anything that is not a `Problem` is a fault of our own: the app learns no more than that.
 */
export function localAnswer(error: unknown, context: { upstream: string | undefined; requestId: string }): Response {
  const problem = error instanceof Problem ? error : new Problem('internal', { cause: error })
  const { status } = problem
  const known = PROBLEMS[problem.code]
  const { detail, retryAfterMs, proxyError, extra, fields } = problem.details
  const document = {
    type: `urn:attache:problem:${problem.code}`,
    title: known.title,
    status,
    detail,
    instance: `urn:attache:request:${context.requestId}`,
    upstream: context.upstream,
    retryable: known.retryable,
    ...extra
  }
  const bytes = Buffer.from(`${JSON.stringify(document)}\n`)
  const waitMs = retryAfterMs ?? RETRY_AFTER_DEFAULT_MS[problem.code] ?? 1000
  return {
    status,
    fields: [
      'Content-Type',
      'application/problem+json',
      'Cache-Control',
      'no-store',
      'Proxy-Status',
      `attache; error=${proxyError ?? known.error}${detail === undefined ? '' : `; details=${quoted(detail)}`}`,
      ...(status === 429 || status === 503 || retryAfterMs !== undefined ? ['Retry-After', String(Math.max(1, Math.ceil(waitMs / 1000)))] : []),
      ...(fields ?? [])
    ],
    body: { kind: 'bytes', bytes },
    source: 'local'
  }
}

// a structured-field string (RFC 9651 §3.3.3): printable ASCII, quotes and backslashes escaped
function quoted(text: string): string {
  return `"${text
    .replaceAll('’', "'")
    .replaceAll(/[^\x20-\x7e]/g, '?')
    .replaceAll(/["\\]/g, '\\$&')}"`
}
