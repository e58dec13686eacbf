import { createHash } from 'node:crypto'
import { empty, field, json, type Answer, type Call, type Fields } from './call.ts'

/** A JSON representation with its validators, answered conditionally (RFC 9110 §13). */
export function representation(call: Call, value: unknown, options: { maxAgeS: number; modifiedAt?: number; fields?: Fields }): Answer {
  const etag = etagOf(value)
  const modified = options.modifiedAt === undefined ? undefined : new Date(options.modifiedAt).toUTCString()
  const fields: Fields = [
    ['ETag', etag],
    ['Cache-Control', `private, max-age=${options.maxAgeS}`],
    ['Vary', 'Accept'],
    ...(modified === undefined ? [] : [['Last-Modified', modified] as const]),
    ...(options.fields ?? [])
  ]
  return isUnchanged(call, etag, modified) ? empty(304, fields) : json(200, value, fields)
}

/** The strong validator of a value. */
export function etagOf(value: unknown): string {
  return `"${createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 16)}"`
}

/** RFC 9110 §13.2.2: `If-Match` that does not match forbids the write. */
export function isOutdated(call: Call, value: unknown): boolean {
  const wanted = field(call.fields, 'if-match')
  return wanted !== undefined && wanted !== '*' && !tags(wanted).includes(etagOf(value))
}

function isUnchanged(call: Call, etag: string, modified: string | undefined): boolean {
  const noneMatch = field(call.fields, 'if-none-match')
  if (noneMatch !== undefined) return noneMatch === '*' || tags(noneMatch).includes(etag)
  const since = Date.parse(field(call.fields, 'if-modified-since') ?? '')
  return modified !== undefined && !Number.isNaN(since) && Date.parse(modified) <= since
}

/** Weak comparison: the `W/` does not count. */
function tags(list: string): string[] {
  return list.split(',').map((tag) => tag.trim().replace(/^W\//, ''))
}
