import { NO_BODY, type Body, type Request, type Response, type Source } from '../../exchange/message.ts'
import { hit } from '../../http/cache-status.ts'
import { isNotModified, notModifiedFields } from '../../http/conditional.ts'
import { hasField, type Fields } from '../../http/fields.ts'
import { byteRange, ifRangeHolds, partialFields, unsatisfiableFields } from '../../http/range.ts'
import { ageMsOf, type StoredAnswer } from './answer.ts'
import { PLAIN, type Asked } from './asked.ts'

/** What the answer made from the store says about itself. */
export type Marks = { readonly source: Source; readonly cacheStatus: string }

/**
 * Answers a plain GET with a fresh stored answer. Everything of such an answer but its age stays the same: one that is
 * wanted again within the same second of age is made once for all of that second.
 */
export function serveHit(answer: StoredAnswer, ageMs: number): Response {
  const ageS = Math.floor(ageMs / 1000)
  const { lastHit } = answer
  if (lastHit.ageS === ageS && lastHit.response !== undefined) return lastHit.response
  const response: Response = {
    status: answer.status,
    fields: [...answer.fields, 'Age', String(ageS)],
    body: answer.body,
    source: 'cache',
    cacheStatus: hitStatus(answer, ageS)
  }
  // an answer in little demand is not worth keeping twice
  lastHit.response = lastHit.ageS === ageS ? response : undefined
  lastHit.ageS = ageS
  return response
}

/** `Cache-Status` of a hit; a lifetime that is not the provider's says whose it is. */
export function hitStatus(answer: StoredAnswer, ageS: number, detail?: string): string {
  return hit(Math.floor(answer.lifetimeMs / 1000) - ageS, detail ?? (answer.local === undefined ? undefined : `local-${answer.local}`))
}

/**
 * Answers any GET or HEAD with a stored answer: 304 where the caller has it already (RFC 9111 §4.3.2), a part of it where
 * a range is asked for (RFC 9110 §14.2), its header alone for HEAD.
 */
export function serve(answer: StoredAnswer, request: Request, asked: Asked, now: number, marks: Marks): Response {
  const fields = [...answer.fields, 'Age', String(Math.floor(ageMsOf(answer, now) / 1000))]
  const whole: Response = { status: answer.status, fields, body: answer.body, ...marks }
  if (asked === PLAIN && request.method === 'GET') return whole
  if (answer.status === 200 && asked.isConditional && isNotModified(request.fields, answer.validators)) {
    return { ...whole, status: 304, fields: notModifiedFields(fields), body: NO_BODY }
  }
  if (request.method === 'HEAD') return { ...whole, fields: measured(fields, answer.body), body: NO_BODY }
  return asked.range === undefined ? whole : part(whole, answer, asked)
}

function part(whole: Response, answer: StoredAnswer, asked: Asked): Response {
  const { body, fields } = whole
  if (answer.status !== 200 || body.kind !== 'bytes' || asked.range === undefined) return whole
  // a whole that calls itself a part is nothing to cut from
  if (hasField(fields, 'content-range') || !ifRangeHolds(asked.ifRange, answer.validators)) return whole
  const sizeBytes = body.bytes.length
  const range = byteRange(asked.range, sizeBytes)
  if (range === 'whole') return whole
  if (range === 'unsatisfiable') return { ...whole, status: 416, fields: unsatisfiableFields(fields, sizeBytes), body: NO_BODY }
  return {
    ...whole,
    status: 206,
    fields: partialFields(fields, range, sizeBytes),
    body: { kind: 'bytes', bytes: body.bytes.subarray(range.first, range.last + 1) }
  }
}

function measured(fields: Fields, body: Body): Fields {
  return body.kind !== 'bytes' || hasField(fields, 'content-length') ? fields : [...fields, 'Content-Length', String(body.bytes.length)]
}
