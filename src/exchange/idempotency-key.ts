import { createHash } from 'node:crypto'
import type { Request } from './message.ts'
import { Problem } from './problem.ts'

/** What an `Idempotency-Key` stands for: method, target and body; hex SHA-256. A streamed body counts as none. */
export function payloadFingerprint(request: Request): string {
  const hash = createHash('sha256').update(`${request.method} ${request.target}\n`)
  if (request.body.kind === 'bytes') hash.update(request.body.bytes)
  return hash.digest('hex')
}

/** The answer to a key that comes again with another payload (draft-ietf-httpapi-idempotency-key-header §2.7). */
export function reusedKey(): Problem {
  return new Problem('bad-request', {
    status: 422,
    detail: 'this Idempotency-Key was used with another payload within the last 24 hours; use a new key for a new request'
  })
}
