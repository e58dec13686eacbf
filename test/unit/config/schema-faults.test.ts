import { Ajv } from 'ajv'
import fc from 'fast-check'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { publishedSchema } from '../../../src/config/load.ts'
import { faultsOf } from '../../../src/config/schema-faults.ts'
import { parseYaml, type Tree } from '../../../src/config/yaml-document.ts'
import { ROOT } from '../../architecture/sources.ts'

const editor = new Ajv({ allErrors: true, strict: false, validateFormats: false }).compile(publishedSchema)

/** What Ajv finds, in the same words: `path keyword`. */
function byAjv(tree: unknown): string[] {
  editor(tree)
  return (editor.errors ?? []).map(({ instancePath, keyword, params }) => {
    const key: unknown = params['additionalProperty'] ?? params['missingProperty']
    const path = instancePath
      .split('/')
      .slice(1)
      .map((segment) => segment.replaceAll('~1', '/').replaceAll('~0', '~'))
    return `${[...path, ...(typeof key === 'string' ? [key] : [])].join('\n')} ${keyword}`
  })
}

function byUs(tree: unknown): string[] {
  return faultsOf(publishedSchema, tree).map(({ path, keyword }) => `${path.join('\n')} ${keyword}`)
}

function example(file: string): Tree {
  const parsed = parseYaml(readFileSync(join(ROOT, file), 'utf8'), file)
  if (parsed.kind === 'refused') throw new Error(`${file} is no example`)
  return parsed.document.tree
}

const examples = [example('config/attache.yaml'), example('config/demo.yaml')]
const keys = [...new Set([...JSON.stringify([publishedSchema, examples]).matchAll(/"([\w-]+)":/g)].map((match) => match[1] ?? ''))]
const key = fc.oneof(
  fc.constantFrom(...keys),
  fc.constantFrom('constructor', 'toString', 'a/b', 'a~1'),
  fc.string({ maxLength: 3 }).filter((text) => text !== '__proto__')
)
const leaf = fc.oneof(
  fc.constantFrom('10s', '1MiB', '100/1m', '${NAME}', 'GET /x', 'none', 'private', '', 0, -1, 0.5, 1.5, 7, 1e9, true, false),
  fc.string({ maxLength: 4 })
)
const value = fc.oneof(leaf, fc.array(leaf, { maxLength: 3 }), fc.dictionary(key, fc.oneof(leaf, fc.dictionary(key, leaf, { maxKeys: 2 })), { maxKeys: 3 }))

/** A copy with something else somewhere inside; `turns` choose the way down. */
function changed(tree: unknown, turns: readonly number[], put: unknown): unknown {
  const [turn, ...rest] = turns
  if (turn === undefined || typeof tree !== 'object' || tree === null) return put
  const entries = Object.entries(tree)
  const at = turn % Math.max(1, entries.length)
  if (Array.isArray(tree)) return tree.map((item: unknown, index) => (index === at ? changed(item, rest, put) : item))
  return Object.fromEntries(entries.map(([name, inner], index) => [name, index === at ? changed(inner, rest, put) : inner]))
}

describe('the faults of a tree', () => {
  test('are those Ajv finds, whatever is put into the shipped examples', () => {
    let faulty = 0
    fc.assert(
      fc.property(fc.constantFrom(...examples), fc.array(fc.nat(30), { minLength: 1, maxLength: 6 }), value, (tree, turns, put) => {
        const broken = changed(tree, turns, put)
        const [ours, theirs] = [byUs(broken), byAjv(broken)]
        expect(ours.length > 0).toBe(theirs.length > 0)
        if (ours.length > 0) faulty += 1
        // of several allowed shapes Ajv tells about each, we about the likeliest: ours are among its
        const isOfSeveral = theirs.some((one) => one.endsWith(' anyOf'))
        const [found, known] = isOfSeveral ? [new Set(ours), new Set(theirs.filter((one) => ours.includes(one)))] : [ours, theirs]
        expect([...found].toSorted()).toEqual([...known].toSorted())
      }),
      { numRuns: 3000 }
    )
    expect(faulty).toBeGreaterThan(500)
  })

  test('are none for the shipped examples', () => {
    for (const tree of examples) expect([byUs(tree), byAjv(tree)]).toEqual([[], []])
  })

  test('cannot be told by a schema with a keyword or type nobody checks', () => {
    const longer = { type: 'string', maxLength: 3 }
    expect(() => faultsOf(longer, 'x')).toThrow('maxLength')
    expect(() => faultsOf({ type: 'null' }, null)).toThrow('null')
  })
})
