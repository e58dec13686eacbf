import findMyWay from 'find-my-way'
import { routeMatcher, unescapeUnreserved, type RouteMatcher } from './route.ts'

/** Many `METHOD /template` patterns at once: the same meaning as `routeMatcher`, at a cost that does not grow with their number. */
export type OperationRouter = {
  /** The pattern that matches, as written; the more specific one where there are several. HEAD goes where GET goes (RFC 9110 §9.3.2). */
  find(method: string, path: string): string | undefined
  /** Methods for which this path would match, sorted. */
  allowedMethods(path: string): string[]
  /** The patterns that look most like this call, best first, at most `SUGGESTIONS`. */
  nearest(method: string, path: string): string[]
}

const SUGGESTIONS = 3

type Pattern = { readonly text: string; readonly method: string; readonly segments: readonly string[] }
/** Every pattern of one method (`''` is any method). */
type Table = {
  readonly tree: findMyWay.Instance<findMyWay.HTTPVersion.V1>
  readonly taken: Set<string>
  readonly irregular: { text: string; matches: RouteMatcher }[]
}

/** Compiles patterns once, at load. Of two patterns of the same shape (`/v1/{id}`, `/v1/*`) the first gives the name. */
export function operationRouter(patterns: readonly string[]): OperationRouter {
  const parsed = patterns.map(parse)
  const tables = new Map<string, Table>()

  function tableFor(method: string): Table {
    const known = tables.get(method)
    if (known !== undefined) return known
    const table = { tree: findMyWay({ maxParamLength: Infinity }), taken: new Set<string>(), irregular: [] }
    tables.set(method, table)
    return table
  }

  function add(pattern: Pattern, shape: string): void {
    const { tree, taken } = tableFor(pattern.method)
    if (taken.has(shape)) return
    taken.add(shape)
    // one tree per method of ours, so that methods node does not know work too: the tree's own method is always GET
    tree.on('GET', shape, unused, pattern.text)
  }

  const regular = parsed.filter((pattern) => isRegular(pattern.segments))
  for (const pattern of regular.filter(({ segments }) => segments.at(-1) !== '**')) add(pattern, shapeOf(pattern.segments))
  for (const pattern of regular.filter(({ segments }) => segments.at(-1) === '**')) {
    const parent = pattern.segments.slice(0, -1)
    add(pattern, `${shapeOf(parent)}/*`)
    // "/articles/**" covers /articles itself too
    if (parent.length > 0) add(pattern, shapeOf(parent))
  }
  for (const pattern of parsed.filter((candidate) => !isRegular(candidate.segments))) {
    tableFor(pattern.method).irregular.push({ text: pattern.text, matches: routeMatcher([`/${pattern.segments.join('/')}`]) })
  }

  function findIn(table: Table | undefined, path: string, encoded: string): string | undefined {
    if (table === undefined) return undefined
    const found = table.tree.find('GET', encoded)
    if (found !== null) return found.store as string
    return table.irregular.find(({ matches }) => matches('', path))?.text
  }

  return {
    find(method, path) {
      const encoded = encode(unescapeUnreserved(path))
      const asGet = method === 'HEAD' ? tables.get('GET') : undefined
      return findIn(tables.get(method), path, encoded) ?? findIn(asGet, path, encoded) ?? findIn(tables.get(''), path, encoded)
    },
    allowedMethods(path) {
      const encoded = encode(unescapeUnreserved(path))
      const methods = [...tables].filter(([method, table]) => method !== '' && findIn(table, path, encoded) !== undefined).map(([method]) => method)
      return [...new Set([...methods, ...(methods.includes('GET') ? ['HEAD'] : [])])].toSorted()
    },
    nearest(method, path) {
      const segments = unescapeUnreserved(path).slice(1).split('/')
      return parsed
        .map((pattern) => ({ text: pattern.text, distance: distance(pattern, method, segments) }))
        .toSorted((a, b) => a.distance - b.distance)
        .slice(0, SUGGESTIONS)
        .map(({ text }) => text)
    }
  }
}

function unused(): void {}

function parse(text: string): Pattern {
  const space = text.indexOf(' ')
  return { text, method: space === -1 ? '' : text.slice(0, space), segments: text.slice(space + 2).split('/') }
}

// whole-segment wildcards and a final "**" are what a radix tree can hold; the rest ("*.json", "a/**/b") stays a regular expression
function isRegular(segments: readonly string[]): boolean {
  return segments.every((segment, i) => isWild(segment) || !segment.includes('*') || (segment === '**' && i === segments.length - 1))
}

function isWild(segment: string): boolean {
  return segment === '*' || /^\{[^}]+\}$/.test(segment)
}

function shapeOf(segments: readonly string[]): string {
  // a bare ":x" would match an empty segment as well
  return segments.map((segment, i) => (isWild(segment) ? `/:p${i}(^.+$)` : `/${encode(segment)}`)).join('')
}

/**
 * find-my-way decodes `%`, cuts at `?` and `#`, and gives `:`, `*`, `(` and `;` a meaning. Patterns and paths are both put
 * into an alphabet where none of these occur, one to one, so that only `/` means anything to it.
 */
function encode(text: string): string {
  if (!/[^A-Za-z0-9\-._/]/.test(text)) return text
  return text.replaceAll(/[^A-Za-z0-9\-._/]/g, (character) => `~${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** How far a call is from a pattern: segment by segment, a strange or missing one costs up to 1, another method a half. */
function distance(pattern: Pattern, method: string, segments: readonly string[]): number {
  let sum = pattern.method === '' || pattern.method === method ? 0 : 0.5
  for (let i = 0; i < Math.max(pattern.segments.length, segments.length); i++) {
    const expected = pattern.segments[i]
    const received = segments[i]
    if (expected === '**') return sum + 0.3
    if (expected === undefined || received === undefined) sum += 1
    else if (isWild(expected)) sum += 0.2
    else if (expected !== received) sum += unlike(expected, received)
  }
  return sum
}

// The share of the longer text that is neither common beginning nor common end: crude, but typos come out near and it is linear.
function unlike(a: string, b: string): number {
  const [short, long] = a.length < b.length ? [a, b] : [b, a]
  let begin = 0
  while (begin < short.length && short[begin] === long[begin]) begin++
  let end = 0
  while (end < short.length - begin && short.at(-1 - end) === long.at(-1 - end)) end++
  return 1 - (begin + end) / long.length
}
