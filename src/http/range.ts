import { stronglyEqual, type Validators } from './conditional.ts'
import { field, keepFields, type Fields } from './fields.ts'
import { parseStrictHttpDate } from './http-date.ts'

/** Bytes from `first` to `last`, both included. */
export type ByteRange = { readonly first: number; readonly last: number }

/**
 * The part of `sizeBytes` bytes a `Range` asks for (RFC 9110 §14.1.2).
 *
 * `whole` where the field is to be ignored: another unit, a syntax error, or several ranges at once, which a server may
 * answer in full and which are a known way to exhaust it. `unsatisfiable` where no byte of it exists.
 */
export function byteRange(text: string, sizeBytes: number): ByteRange | 'whole' | 'unsatisfiable' {
  const parts = /^bytes\s*=\s*(?:(\d{1,15})-(\d{1,15})?|-(\d{1,15}))\s*$/i.exec(text)
  if (parts === null) return 'whole'
  const [, from, to, suffix] = parts
  if (suffix !== undefined) {
    const length = Math.min(Number(suffix), sizeBytes)
    return length === 0 ? 'unsatisfiable' : { first: sizeBytes - length, last: sizeBytes - 1 }
  }
  const first = Number(from)
  if (to !== undefined && Number(to) < first) return 'whole'
  if (first >= sizeBytes) return 'unsatisfiable'
  return { first, last: to === undefined ? sizeBytes - 1 : Math.min(Number(to), sizeBytes - 1) }
}

/**
 * Whether `If-Range` holds for a stored answer (RFC 9110 §13.1.5), so that the part fits what the caller has: a strong
 * entity tag, or exactly the `Last-Modified` where that is a strong validator (§8.8.2.2: a second before the answer).
 */
export function ifRangeHolds(condition: string | undefined, stored: Validators): boolean {
  if (condition === undefined) return true
  const text = condition.trim()
  if (text.includes('"')) return stored.etag !== undefined && stronglyEqual(text, stored.etag)
  if (stored.lastModified === undefined || text !== stored.lastModified) return false
  const modified = parseStrictHttpDate(stored.lastModified)
  return modified !== undefined && modified + 1000 <= stored.dateMs
}

/** The fields of a 206 made from a complete answer (RFC 9110 §15.3.7); the body is framed by who sends it. */
export function partialFields(fields: Fields, range: ByteRange, sizeBytes: number): string[] {
  const kept = keepFields(fields, (name) => name.length !== 14 || name.toLowerCase() !== 'content-length')
  kept.push('Content-Range', `bytes ${range.first}-${range.last}/${sizeBytes}`)
  return kept
}

/** The fields of a 416 (RFC 9110 §15.5.17). */
export function unsatisfiableFields(fields: Fields, sizeBytes: number): string[] {
  const date = field(fields, 'date')
  return [...(date === undefined ? [] : ['Date', date]), 'Content-Range', `bytes */${sizeBytes}`]
}
