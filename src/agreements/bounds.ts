import type { Rate } from '../exchange/options.ts'
import type { Agreement, Bound, Requirement } from './agreement.ts'

/** A setting that is laxer than the agreement allows. `key` is as the bound names it: `upstream.…` or `credential.…`. */
export type Breach = { readonly clause: string; readonly key: string; readonly message: string }

/** Decoded settings by part; a bound on a part that is not given is not looked at. */
export type Subject = { readonly upstream?: unknown; readonly credential?: unknown }

/** Every bound and requirement of the agreement that the settings do not keep. Values are milliseconds, bytes and plain numbers. */
export function breaches(agreement: Agreement, subject: Subject): Breach[] {
  const bounds = agreement.bounds.flatMap((bound) => {
    const value = valueOf(subject, bound.key)
    const message = value.known ? brokenBy(bound, value.value) : undefined
    return message === undefined ? [] : [{ clause: bound.clause, key: bound.key, message: `${message}, ${agreement.title} ${bound.clause}: ${bound.why}` }]
  })
  const requires = agreement.requires.flatMap((requirement) => {
    const value = valueOf(subject, requirement.key)
    const message = value.known ? missingIn(requirement, value.value) : undefined
    return message === undefined
      ? []
      : [{ clause: requirement.clause, key: requirement.key, message: `${message}, ${agreement.title} ${requirement.clause}: ${requirement.why}` }]
  })
  return [...bounds, ...requires]
}

function brokenBy(bound: Bound, value: unknown): string | undefined {
  if (bound.min !== undefined) {
    const min = bound.min
    const low = typeof min === 'number' ? !(typeof value === 'number' && value >= min) : !keepsLadder(value, min)
    if (low) return `must be at least ${bound.written}`
  }
  if (bound.max !== undefined && !(typeof value === 'number' && value <= bound.max)) return `must be at most ${bound.written}`
  if (bound.includes !== undefined) {
    const present = Array.isArray(value) ? value : []
    const absent = bound.includes.filter((item) => !present.includes(item))
    if (absent.length > 0) return `must include ${absent.join(', ')}`
  }
  if (bound.atMost !== undefined) {
    const most = bound.atMost
    const rates: unknown[] = Array.isArray(value) ? value : []
    if (!rates.some((rate) => isRate(rate) && countWithin(rate, most.windowMs) <= most.count)) return `must keep to ${most.label}`
  }
  return undefined
}

/** Every step is at least as long as the agreed one; the agreed ladder's last step repeats. */
function keepsLadder(value: unknown, agreed: readonly number[]): boolean {
  const steps: unknown[] = Array.isArray(value) ? value : [undefined]
  return steps.every((step, i) => typeof step === 'number' && step >= (agreed[Math.min(i, agreed.length - 1)] ?? 0))
}

/** The most calls a rate lets into a window of another length. */
function countWithin(rate: Rate, windowMs: number): number {
  return rate.count * Math.ceil(windowMs / rate.windowMs)
}

function isRate(value: unknown): value is Rate {
  return typeof value === 'object' && value !== null && 'count' in value && 'windowMs' in value
}

const SHAPES: Record<string, { pattern: RegExp; words: string }> = {
  uuid: { pattern: /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i, words: 'a UUID such as 3f2b1c9e-…, without braces' }
}

function missingIn(requirement: Requirement, value: unknown): string | undefined {
  if (value === undefined || value === '') return 'is missing'
  const shape = requirement.matches === undefined ? undefined : SHAPES[requirement.matches]
  if (shape !== undefined && !(typeof value === 'string' && shape.pattern.test(value))) return `must be ${shape.words}`
  return undefined
}

/** Follows a dotted key; field names are found in any case, as HTTP reads them. */
function valueOf(subject: Subject, key: string): { known: boolean; value: unknown } {
  const [part, ...path] = key.split('.')
  let value: unknown = part === 'upstream' ? subject.upstream : subject.credential
  if (value === undefined) return { known: false, value }
  for (const segment of path) {
    if (typeof value !== 'object' || value === null) return { known: true, value: undefined }
    const found = Object.entries(value).find(([name]) => name.toLowerCase() === segment.toLowerCase())
    value = found?.[1]
  }
  return { known: true, value }
}
