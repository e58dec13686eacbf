import { Token, parseItem } from 'structured-headers'
import { isNamed, type Fields } from './fields.ts'
import { parseHttpDate } from './http-date.ts'

/** What a provider says about the coming end of an operation. Times are epoch milliseconds. */
export type Notice = {
  /**
   * `deprecated` and `sunset` (the date has passed) speak of this call; `brownout` refuses it for now; `version-deprecated`
   * says that some versions of it are, `warning` says so in words only.
   */
  readonly stage: 'deprecated' | 'sunset' | 'brownout' | 'version-deprecated' | 'warning'
  readonly deprecatedAt: number | undefined
  readonly sunsetAt: number | undefined
  /** Where to read on: the first link that says deprecation, sunset or successor, as sent. */
  readonly link: string | undefined
  /** The answer names a sunset before its deprecation: RFC 9745 §4 forbids that, somebody mistyped. */
  readonly inconsistent: boolean
}

// Dinero answers deprecated endpoints so in their last days.
const BROWNOUT = 480
const LINK_RELATIONS = ['deprecation', 'sunset', 'successor-version']
/** Longer values are not worth reading. */
const LONGEST_VALUE = 4096

/**
 * Reads Deprecation (RFC 9745, and the drafts' `true` and HTTP-date), Sunset (RFC 8594), Link relations (RFC 8288),
 * `api-deprecated-versions` and `Warning: 299` of an answer. Undefined where it gives no notice, which costs one scan.
 */
export function noticeOf(status: number, fields: Fields, wallNow: () => number): Notice | undefined {
  let deprecation: string | undefined
  let sunset: string | undefined
  let links: string | undefined
  let versions: string | undefined
  let warned = false
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string
    const value = fields[i + 1] as string
    switch (name.length) {
      case 4:
        if (isNamed(name, 'link')) links = links === undefined ? value : `${links}, ${value}`
        break
      case 6:
        if (isNamed(name, 'sunset')) sunset ??= value
        break
      case 7:
        if (isNamed(name, 'warning')) warned ||= /^299 .*(?:deprecat|sunset|obsolete|discontinu|retire)/i.test(value.slice(0, LONGEST_VALUE))
        break
      case 11:
        if (isNamed(name, 'deprecation')) deprecation ??= value
        break
      case 23:
        if (isNamed(name, 'api-deprecated-versions')) versions ??= value
        break
    }
  }
  if (deprecation === undefined && sunset === undefined && versions === undefined && !warned && status !== BROWNOUT) return undefined
  const deprecated = deprecation === undefined ? { said: false, at: undefined } : deprecationOf(deprecation)
  const sunsetAt = sunset === undefined ? undefined : parseHttpDate(sunset)
  const stage = stageOf({ status, sunsetAt, isDeprecated: deprecated.said, versions, warned }, wallNow)
  if (stage === undefined) return undefined
  return {
    stage,
    deprecatedAt: deprecated.at,
    sunsetAt,
    link: links === undefined ? undefined : relatedLink(links.slice(0, LONGEST_VALUE)),
    inconsistent: deprecated.at !== undefined && sunsetAt !== undefined && sunsetAt < deprecated.at
  }
}

type Said = {
  readonly status: number
  readonly sunsetAt: number | undefined
  readonly isDeprecated: boolean
  readonly versions: string | undefined
  readonly warned: boolean
}

function stageOf({ status, sunsetAt, isDeprecated, versions, warned }: Said, wallNow: () => number): Notice['stage'] | undefined {
  if (status === BROWNOUT) return 'brownout'
  if (sunsetAt !== undefined && sunsetAt <= wallNow()) return 'sunset'
  if (isDeprecated || sunsetAt !== undefined) return 'deprecated'
  if (versions !== undefined && versions.trim() !== '') return 'version-deprecated'
  return warned ? 'warning' : undefined
}

function deprecationOf(value: string): { said: boolean; at: number | undefined } {
  const httpDate = parseHttpDate(value)
  if (httpDate !== undefined) return { said: true, at: httpDate }
  // structured-headers 2.1 reads a date to the end of the text, so that parameters (which mean nothing here) break it
  const item = itemOf(value.startsWith('@') ? value.replace(/\s*;.*$/, '') : value)
  if (item instanceof Date) return { said: true, at: item.getTime() }
  // bare epoch seconds without the @ are a common slip
  if (typeof item === 'number' && item > 1e9 && item < 1e11) return { said: true, at: item * 1000 }
  return { said: item === true || (item instanceof Token && item.toString().toLowerCase() === 'true'), at: undefined }
}

function itemOf(value: string): unknown {
  try {
    return parseItem(value.trim())[0]
  } catch {
    // not a structured field: the drafts' forms have been tried before, so this says nothing
    return undefined
  }
}

/** The target of the first link with one of the relations; among equals the first relation in the list's order. */
function relatedLink(value: string): string | undefined {
  const found = parseLinks(value)
  for (const relation of LINK_RELATIONS) {
    const link = found.find(({ relations }) => relations.includes(relation))
    if (link !== undefined) return link.target
  }
  return undefined
}

/** Reads a `Link` field (RFC 8288 §3): quoted strings may hold commas and semicolons, the first `rel` counts. */
export function parseLinks(value: string): { target: string; relations: string[] }[] {
  return splitOutside(value, ',').flatMap((link) => {
    const target = /^\s*<([^>]*)>/.exec(link)
    if (target === null) return []
    const parameters = splitOutside(link.slice(target[0].length), ';').map((parameter) => /^\s*rel\s*=\s*(.*?)\s*$/i.exec(parameter)?.[1])
    const rel = parameters.find((parameter) => parameter !== undefined) ?? ''
    return [{ target: target[1] ?? '', relations: rel.replace(/^"|"$/g, '').toLowerCase().split(/\s+/) }]
  })
}

// cuts at a separator that is neither in a quoted string nor in <…>
function splitOutside(value: string, separator: string): string[] {
  const parts: string[] = []
  let start = 0
  let closing = ''
  for (let i = 0; i < value.length; i++) {
    const character = value.charAt(i)
    if (closing === '"' && character === '\\') i++
    else if (closing !== '') closing = character === closing ? '' : closing
    else if (character === '"') closing = '"'
    else if (character === '<') closing = '>'
    else if (character === separator) {
      parts.push(value.slice(start, i))
      start = i + 1
    }
  }
  return [...parts, value.slice(start)]
}
