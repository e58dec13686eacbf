/** The only room that imports `yaml`. Its taming: size, depth and alias limits, plain trees with text keys, line numbers by path. */
import { Document, isAlias, isMap, isNode, isScalar, isSeq, LineCounter, parse, parseDocument, type Node } from 'yaml'
import type { Finding } from './findings.ts'

/** Plain data: objects with text keys, lists and scalars; an empty value (`key:`) counts as not written. */
export type Tree = Record<string, unknown>

export type YamlDocument = {
  readonly tree: Tree
  /** The line of a key or list item; of the nearest one above it that is written, where it is not. */
  lineOf(path: readonly string[]): number | undefined
}

export type YamlResult = { kind: 'parsed'; document: YamlDocument } | { kind: 'refused'; findings: Finding[] }

const MOST_CHARACTERS = 1024 * 1024
/** Levels of nesting that are accepted. */
export const DEEPEST = 32
const MOST_ALIASES = 100
const ABYSS = new RegExp(`(?:[[{]\\s*){${DEEPEST * 10}}`)

// `{ value: ${KEY} }` reads well, but braces mean something inside braces. For the parser a reference is one word of
// characters that mean nothing (private use, same length, so that columns stay right).
const REFERENCE = /\$\{([A-Za-z_]\w*)\}/g
const MASKED = /\uE000\uE001(\w+)\uE002/g

// `state: memory:` is how one would write it, beside `sqlite:PATH`; for YAML the last colon begins a map.
const BARE_MEMORY = /^(state:[ \t]+)memory:[ \t]*(?=\r?$|#)/m

function prepared(text: string): string {
  return text.replaceAll(REFERENCE, '\uE000\uE001$1\uE002').replace(BARE_MEMORY, '$1"memory:" ')
}

/**
 * Reads one YAML 1.2 document whose top is a map; gives every syntax error at once, but only the first of those that
 * tend to follow from one another. References `${NAME}` may stand anywhere, unquoted.
 */
export function parseYaml(text: string, file: string): YamlResult {
  if (text.length > MOST_CHARACTERS) return refuse(file, 'larger than 1 MiB, this is no configuration')
  // found before the parser is asked, which may or may not run out of stack on it
  const abyss = ABYSS.exec(text)
  if (abyss !== null) return refuse(file, tooDeep(), text.slice(0, abyss.index).split('\n').length)
  const lines = new LineCounter()
  try {
    const document = parseDocument(prepared(text), { lineCounter: lines, merge: true, prettyErrors: false, logLevel: 'error' })
    const problems = [...document.errors, ...document.warnings]
    const first = problems.find(({ code }) => SYNTAX[code] === undefined)
    const telling = problems.filter((problem) => problem === first || SYNTAX[problem.code] !== undefined)
    if (telling.length > 0) return { kind: 'refused', findings: telling.map((problem) => syntaxFinding(problem, lines, file)) }
    const tree = plain(document.toJS({ maxAliasCount: MOST_ALIASES }), 0)
    if (tree === undefined) return refuse(file, 'the file is empty')
    if (!isTree(tree)) return refuse(file, 'must be a map of keys')
    return { kind: 'parsed', document: { tree, lineOf: (path) => lineOf(document, lines, path) } }
  } catch (error) {
    // toJS throws a ReferenceError over the alias limit, and over an alias that leads nowhere; the parser itself overflows the stack on absurd nesting
    if (error instanceof ReferenceError) {
      return refuse(
        file,
        error.message.startsWith('Unresolved') ? 'an alias (*) without its anchor (&) before it' : 'aliases expand to far too much, write the values out'
      )
    }
    if (error instanceof RangeError) return refuse(file, tooDeep())
    // what is left to go wrong once the syntax is right
    return refuse(file, 'a merge key (<<) or alias that stands for no map')
  }
}

/** Plain data from a JSON or YAML text of another's making (an OpenAPI description). Throws a plain `Error` saying it is neither. */
export function parseData(text: string): unknown {
  try {
    return /^\s*[{[]/.test(text) ? JSON.parse(text) : parse(text, { maxAliasCount: MOST_ALIASES, logLevel: 'error' })
  } catch (cause) {
    throw new Error('is neither JSON nor YAML', { cause })
  }
}

/** A tree as YAML, each value with the comment that `commentOf` gives for its path; lists stand on one line, texts are not folded. */
export function toYaml(tree: Tree, commentOf: (path: readonly string[]) => string): string {
  const document = new Document(tree)
  annotate(document.contents, [])
  return document.toString({ lineWidth: 0, flowCollectionPadding: false })

  function annotate(node: unknown, path: readonly string[]): void {
    if (isMap(node) && node.items.length > 0) {
      for (const pair of node.items) annotate(pair.value, [...path, String(isScalar(pair.key) ? pair.key.value : pair.key)])
    } else if (isSeq(node) && node.items.some((item) => isMap(item))) {
      node.items.forEach((item, index) => annotate(item, [...path, String(index)]))
    } else if (isNode(node)) {
      if (isSeq(node)) node.flow = true
      node.comment = ` ${commentOf(path)}`
    }
  }
}

export function isTree(value: unknown): value is Tree {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function refuse(file: string, message: string, line?: number): YamlResult {
  return { kind: 'refused', findings: [{ file, line, key: '', message }] }
}

function tooDeep(): string {
  return `nested deeper than ${DEEPEST} levels`
}

const SYNTAX: Readonly<Record<string, string>> = {
  DUPLICATE_KEY: 'the same key twice',
  MULTIPLE_DOCS: 'several documents in one file, only one is read',
  RESOURCE_EXHAUSTION: tooDeep()
}

function syntaxFinding(problem: { code: string; message: string; pos: [number, number] }, lines: LineCounter, file: string): Finding {
  // the parser's text may quote the source, and the source may hold a secret where none belongs
  const message = SYNTAX[problem.code] ?? `not valid YAML (${problem.code.toLowerCase().replaceAll('_', ' ')})`
  return { file, line: lines.linePos(problem.pos[0]).line, key: '', message }
}

/** Copies into plain data, dropping empty values; the depth limit also ends structures that contain themselves. */
function plain(value: unknown, depth: number): unknown {
  if (depth > DEEPEST) throw new RangeError('too deep')
  if (Array.isArray(value)) return value.map((item) => plain(item, depth + 1) ?? null)
  if (value === null || value === undefined) return undefined
  if (typeof value === 'string') return unmasked(value)
  if (typeof value !== 'object') return value
  const entries = Object.entries(value).map(([key, inner]) => [unmasked(key), plain(inner, depth + 1)] as const)
  return Object.fromEntries(entries.filter(([, inner]) => inner !== undefined))
}

function unmasked(text: string): string {
  return text.replaceAll(MASKED, '${$1}')
}

function lineOf(document: Document, lines: LineCounter, path: readonly string[]): number | undefined {
  let node: unknown = document.contents
  let offset = rangeStart(node)
  for (const segment of path) {
    if (isAlias(node)) node = node.resolve(document)
    if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === segment)
      if (pair === undefined) break
      offset = rangeStart(pair.key) ?? offset
      node = pair.value
    } else if (isSeq(node)) {
      node = node.items[Number(segment)]
      offset = rangeStart(node) ?? offset
    } else break
  }
  return offset === undefined ? undefined : lines.linePos(offset).line
}

function rangeStart(node: unknown): number | undefined {
  return (node as Node | null | undefined)?.range?.[0]
}
