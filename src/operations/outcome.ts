import { isUtf8 } from 'node:buffer'
import { NO_BODY, type Body, type Response } from '../exchange/message.ts'
import { field, isNamed, type Fields } from '../http/fields.ts'
import { sidecarLinks, sidecarReference } from '../http/target.ts'
import type { Entry, Outcome } from './journal.ts'

/** What an operation that has not ended tells of itself. */
export type Progress = {
  readonly id: string
  readonly state: 'waiting' | 'running' | 'cancelling'
  /** Attempts made so far. */
  readonly attempt: number
  /** ISO 8601, where the next attempt has a time. */
  readonly nextTryAt?: string
}

/** 202: not yet. */
export function progressAnswer(progress: Progress, fields: Fields = []): Response {
  return jsonAnswer(202, progress, fields)
}

/** 200: how it ended, the answer's body as text or base64 (`bodyEncoding`); a problem also as an object. */
export function outcomeAnswer(outcome: Outcome, body: Buffer): Response {
  const isText = isUtf8(body) && field(outcome.fields, 'content-encoding') === undefined
  return jsonAnswer(200, {
    status: outcome.status,
    headers: headersOf(outcome.fields),
    body: body.toString(isText ? 'utf8' : 'base64'),
    ...(isText ? {} : { bodyEncoding: 'base64' }),
    // said, so that nobody takes an empty body for the answer's
    ...(outcome.isCut ? { bodyOmitted: true } : {}),
    ...(outcome.isProblem ? { problem: JSON.parse(body.toString()) as unknown } : {})
  })
}

/** The answer as the app would have seen it, ready to be kept: references to the provider's host become sidecar paths. */
export function outcomeOf(
  entry: Entry,
  answer: Response,
  isProblem: boolean,
  place: { base: URL; prefix: string } | undefined,
  keptUntil: number
): { outcome: Outcome; body: Buffer } {
  const { upstream, fingerprint, target } = entry
  return {
    outcome: {
      upstream,
      fingerprint,
      status: answer.status,
      fields: place === undefined || isProblem ? answer.fields : rewritten(answer.fields, target, place.base, place.prefix),
      isProblem,
      isCut: answer.body.kind === 'stream',
      keptUntil
    },
    body: bytesOf(answer.body)
  }
}

export function bytesOf(body: Body): Buffer {
  return body.kind === 'bytes' ? body.bytes : Buffer.alloc(0)
}

export function bodyOf(bytes: Buffer): Body {
  return bytes.length === 0 ? NO_BODY : { kind: 'bytes', bytes }
}

function rewritten(fields: Fields, target: string, base: URL, prefix: string): string[] {
  return fields.map((value, i) => {
    const name = i % 2 === 0 ? '' : (fields[i - 1] ?? '')
    if (isNamed(name, 'location') || isNamed(name, 'content-location')) return sidecarReference(value, target, base, prefix)
    return isNamed(name, 'link') ? sidecarLinks(value, target, base, prefix) : value
  })
}

// several fields of one name become one list (RFC 9110 §5.3)
function headersOf(fields: Fields): Record<string, string> {
  const headers = new Map<string, string>()
  for (let i = 0; i < fields.length; i += 2) {
    const name = (fields[i] as string).toLowerCase()
    const before = headers.get(name)
    headers.set(name, before === undefined ? (fields[i + 1] as string) : `${before}, ${fields[i + 1]}`)
  }
  return Object.fromEntries(headers)
}

function jsonAnswer(status: number, document: unknown, fields: Fields = []): Response {
  return {
    status,
    fields: ['Content-Type', 'application/json', 'Cache-Control', 'no-store', ...fields],
    body: { kind: 'bytes', bytes: Buffer.from(`${JSON.stringify(document)}\n`) },
    source: 'local'
  }
}
