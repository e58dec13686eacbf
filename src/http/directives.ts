/** Cache directives as received: name in lower case, its arguments in order of occurrence, undefined for none. */
export type Directives = {
  readonly all: ReadonlyMap<string, readonly (string | undefined)[]>
  /** A quote was never closed: what it would have hidden is read as directives, and nothing here may be trusted to allow. */
  readonly malformed: boolean
}

/** The greatest age there is: larger values count as this one (RFC 9111 §1.2.2). In seconds, about 68 years. */
export const MAX_DELTA_SECONDS = 2 ** 31

// A list longer than this is an attack, not a policy.
const LONGEST_LIST = 8192

const NOTHING: Directives = { all: new Map(), malformed: false }

/**
 * Splits a `Cache-Control` value into directives (RFC 9111 §5.2), both argument forms, in one pass and without throwing.
 *
 * Arguments of the quoted form come unescaped. An argument that is neither token nor quoted string is kept with what is
 * wrong about it (a blank around `=`, text behind the closing quote), so that no reader takes it for a valid one.
 */
export function parseDirectives(text: string | undefined): Directives {
  if (text === undefined || text === '') return NOTHING
  if (text.length > LONGEST_LIST) return { all: new Map([['no-store', [undefined]]]), malformed: true }
  const all = new Map<string, (string | undefined)[]>()
  let malformed = false
  let at = 0
  while (at < text.length) {
    const start = at
    while (at < text.length && text[at] !== '=' && text[at] !== ',') at++
    const name = text.slice(start, at).trimStart()
    let argument: string | undefined
    if (text[at] === '=') {
      const read = readArgument(text, at + 1)
      argument = read.argument
      at = read.end
      malformed ||= read.unclosed
      // `max-age =60`: no such form; the name is known, the value is not
      if (name.trimEnd() !== name) argument = ` =${argument}`
    }
    remember(all, name.trimEnd().toLowerCase(), argument)
    at++
  }
  return { all, malformed }
}

/** Seconds from an argument; undefined where it is not a non-negative integer. */
export function deltaSeconds(argument: string | undefined): number | undefined {
  if (argument === undefined || !/^\d+$/.test(argument)) return undefined
  return Math.min(Number(argument), MAX_DELTA_SECONDS)
}

/** The members of a field-name list argument in lower case; undefined where any of it is not a field name, or none is. */
export function fieldNames(argument: string): readonly string[] | undefined {
  const names = argument
    .split(',')
    .map((name) => name.trim().toLowerCase())
    .filter((name) => name !== '')
  return names.length > 0 && names.every((name) => /^[!#$%&'*+\-.^_`|~0-9a-z]+$/.test(name)) ? names : undefined
}

function remember(all: Map<string, (string | undefined)[]>, name: string, argument: string | undefined): void {
  if (name === '') return
  const seen = all.get(name)
  if (seen === undefined) all.set(name, [argument])
  else seen.push(argument)
}

function readArgument(text: string, from: number): { argument: string; end: number; unclosed: boolean } {
  if (text[from] !== '"') {
    const end = endOfItem(text, from)
    return { argument: text.slice(from, end).trimEnd(), end, unclosed: false }
  }
  let argument = ''
  for (let at = from + 1; at < text.length; at++) {
    const character = text[at]
    if (character === '"') {
      const end = endOfItem(text, at + 1)
      return { argument: argument + text.slice(at + 1, end).trimEnd(), end, unclosed: false }
    }
    argument += character === '\\' ? (text[++at] ?? '') : character
  }
  const end = endOfItem(text, from)
  return { argument: text.slice(from, end), end, unclosed: true }
}

function endOfItem(text: string, from: number): number {
  const comma = text.indexOf(',', from)
  return comma === -1 ? text.length : comma
}
