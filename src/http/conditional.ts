import { field, fieldList, fieldValues, keepFields, type Fields } from './fields.ts'
import { parseStrictHttpDate } from './http-date.ts'

/** The validators of a stored answer (RFC 9110 §8.8). `dateMs` is its `Date` or the time it was received. */
export type Validators = {
  /** As received, `W/` included. */
  readonly etag: string | undefined
  /** As received; only where it is a date. */
  readonly lastModified: string | undefined
  readonly dateMs: number
}

export function validatorsOf(fields: Fields, dateMs: number): Validators {
  const lastModified = field(fields, 'last-modified')
  return {
    etag: field(fields, 'etag')?.trim(),
    lastModified: lastModified !== undefined && parseStrictHttpDate(lastModified) !== undefined ? lastModified : undefined,
    dateMs
  }
}

/** Two entity tags are the same representation, or as good as (RFC 9110 §8.8.3.2). */
export function weaklyEqual(a: string, b: string): boolean {
  return opaque(a) === opaque(b)
}

/** Two entity tags are the same representation byte for byte: weak ones never are. */
export function stronglyEqual(a: string, b: string): boolean {
  return a === b && !isWeak(a)
}

export function isWeak(etag: string): boolean {
  return etag.startsWith('W/')
}

function opaque(etag: string): string {
  return isWeak(etag) ? etag.slice(2) : etag
}

/** The entity tags of a list; commas inside quotes belong to the tag, and a tag without quotes is taken as it is. */
export function entityTags(list: string): string[] {
  return [...list.matchAll(/(?:W\/)?"[^"]*"|[^\s,]+/g)].map(([tag]) => tag)
}

/**
 * Whether a caller that sent these preconditions already has the stored answer (RFC 9111 §4.3.2, RFC 9110 §13.2.2).
 *
 * `If-None-Match` decides alone where it is present, by weak comparison; else `If-Modified-Since` against `Last-Modified`,
 * or without one against the answer's date. A date that cannot be read is as good as none.
 */
export function isNotModified(fields: Fields, stored: Validators): boolean {
  const noneMatch = fieldList(fields, 'if-none-match')
  if (noneMatch !== undefined) {
    if (noneMatch.trim() === '*') return true
    const { etag } = stored
    return etag !== undefined && entityTags(noneMatch).some((tag) => weaklyEqual(tag, etag))
  }
  const since = fieldValues(fields, 'if-modified-since')
  const [text] = since
  if (text === undefined || since.length > 1) return false
  const sinceMs = parseStrictHttpDate(text)
  if (sinceMs === undefined) return false
  const modifiedMs = stored.lastModified === undefined ? undefined : parseStrictHttpDate(stored.lastModified)
  return Math.floor((modifiedMs ?? stored.dateMs) / 1000) <= Math.floor(sinceMs / 1000)
}

const CONDITIONS = new Set(['if-none-match', 'if-modified-since', 'if-match', 'if-unmodified-since', 'if-range', 'range'])

/** A copy without preconditions and ranges: what the cache asks on its own account. */
export function unconditional(fields: Fields): string[] {
  return keepFields(fields, (name) => !CONDITIONS.has(name.toLowerCase()))
}

/** The fields of a request that asks whether the stored answer still holds (RFC 9111 §4.3.1); undefined without validators. */
export function validating(fields: Fields, stored: Validators): Fields | undefined {
  if (stored.etag === undefined && stored.lastModified === undefined) return undefined
  const asking = unconditional(fields)
  if (stored.etag !== undefined) asking.push('If-None-Match', stored.etag)
  if (stored.lastModified !== undefined) asking.push('If-Modified-Since', stored.lastModified)
  return asking
}

/**
 * Whether a 304 speaks of the stored answer (RFC 9111 §4.3.4): by a strong validator it has to be the same one, by a weak
 * one it has to correspond; without any it can only mean the one that was asked about.
 */
export function confirms(fields: Fields, stored: Validators): boolean {
  const etag = field(fields, 'etag')?.trim()
  if (etag !== undefined) {
    if (stored.etag === undefined) return false
    return isWeak(etag) ? weaklyEqual(etag, stored.etag) : etag === stored.etag
  }
  const lastModified = field(fields, 'last-modified')
  return lastModified === undefined || stored.etag !== undefined || lastModified === stored.lastModified
}

/** Whether an answer to HEAD is about the very content that is stored (RFC 9111 §4.3.5), which has `sizeBytes` bytes. */
export function describes(fields: Fields, stored: Fields, sizeBytes: number): boolean {
  const length = field(fields, 'content-length')
  const etag = field(fields, 'etag')?.trim()
  const lastModified = field(fields, 'last-modified')
  return (
    (etag === undefined || etag === field(stored, 'etag')?.trim()) &&
    (lastModified === undefined || lastModified === field(stored, 'last-modified')) &&
    (length === undefined || Number(length) === sizeBytes)
  )
}

/** Describe the stored bytes; they did not arrive anew, so neither may these (RFC 9111 §3.2). */
const BOUND_TO_CONTENT = new Set(['content-length', 'content-encoding', 'content-range'])

/**
 * The stored fields updated by those of a 304 or of an answer to HEAD (RFC 9111 §3.2): new ones replace every line of the
 * same name, the rest stays. `newer` has to be stripped of what is not stored already.
 */
export function updatedFields(stored: Fields, newer: Fields): string[] {
  const replacing = keepFields(newer, (name) => !BOUND_TO_CONTENT.has(name.toLowerCase()))
  const names = new Set<string>()
  for (let i = 0; i < replacing.length; i += 2) names.add((replacing[i] as string).toLowerCase())
  return [...keepFields(stored, (name) => !names.has(name.toLowerCase())), ...replacing]
}

/**
 * The fields of a 304 made from a stored answer (RFC 9110 §15.4.5): everything that guides a cache, nothing that only
 * describes the content left out.
 */
export function notModifiedFields(fields: Fields): string[] {
  const hasEtag = field(fields, 'etag') !== undefined
  return keepFields(fields, (name) => {
    const lower = name.toLowerCase()
    if (lower === 'last-modified') return !hasEtag
    return lower === 'content-location' || !lower.startsWith('content-')
  })
}
