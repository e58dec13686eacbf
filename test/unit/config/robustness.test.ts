import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { stringify } from 'yaml'
import { loadConfig } from '../../../src/config/load.ts'
import { parseYaml } from '../../../src/config/yaml-document.ts'
import { ROOT } from '../../../src/package.ts'
import { files } from './written.ts'

const TEXT = readFileSync(join(ROOT, 'config/attache.yaml'), 'utf8')
const parsed = parseYaml(TEXT, 'attache.yaml')
const TREE = parsed.kind === 'parsed' ? parsed.document.tree : {}

const NAMES = [...TEXT.matchAll(/\$\{([A-Z]+_[A-Z_]+|CONTACT)\}/g)].map((match) => match[1] ?? '')
// one value that is a URL, a date and a UUID does not exist, so each key gets what it needs for the rest to be looked at
const ENVIRONMENT = Object.fromEntries(
  NAMES.map((name) => [name, name.endsWith('_URL') ? 'https://a.example/' : name.endsWith('EXPIRES') ? '2028-01-31' : '3f2b1c9e-0a1b-4c2d-8e3f-001122334455'])
)

// anything that YAML can say, with a liking for what means something here
const odd: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom('', '${X}', '${', 'file:', 'file:/', '10s', '100/1m', '__proto__', 'none', 'https://a.example/', -1, 0, 1e308, true, null, [], {}),
  fc.jsonValue({ maxDepth: 3 }),
  fc.dictionary(fc.constantFrom('match', 'credential', 'grant', 'baseUrl', 'ttl', '__proto__', 'constructor', '404'), fc.jsonValue({ maxDepth: 1 }))
)

function paths(value: unknown, path: readonly string[] = []): (readonly string[])[] {
  if (typeof value !== 'object' || value === null) return [path]
  return [path, ...Object.entries(value).flatMap(([key, inner]) => paths(inner, [...path, key]))]
}

function replaced(value: unknown, [key, ...rest]: readonly string[], by: unknown): unknown {
  if (key === undefined) return by
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map((item: unknown, index) => (String(index) === key ? replaced(item, rest, by) : item))
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, name === key ? replaced(inner, rest, by) : inner]))
}

test('whatever stands anywhere in a config, loading it gives a config or findings that name file and message', () => {
  const file = files({ 'attache.yaml': TEXT })
  const odder = `${file}.odd`
  const places = paths(TREE).filter((path) => path.length > 0)
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.constantFrom(...places), odd), { minLength: 1, maxLength: 3 }), (changes) => {
      const tree = changes.reduce<unknown>((whole, [path, by]) => replaced(whole, path, by), TREE)
      writeFileSync(odder, stringify(tree))
      const result = loadConfig(odder, ENVIRONMENT)
      return result.kind === 'loaded' || result.findings.every((finding) => finding.message !== '' && finding.file !== '')
    }),
    { numRuns: 40 }
  )
  // the one thing wrong with it unchanged is the key that is not there
  const unchanged = loadConfig(file, ENVIRONMENT)
  expect(unchanged.kind === 'refused' && unchanged.findings.map((finding) => finding.key)).toEqual(['credentials.partner.key'])
})

test('whatever bytes are called a config, loading them does not throw', () => {
  const file = files({ 'attache.yaml': '' })
  fc.assert(
    fc.property(
      fc.oneof(fc.string(), fc.string({ unit: fc.constantFrom('a', ':', ' ', '\n', '-', '[', '{', '&', '*', '"', '#', '|', '!', '\t', '<'), maxLength: 60 })),
      (text) => {
        writeFileSync(file, text)
        const { kind } = loadConfig(file, {})
        return kind === 'loaded' || kind === 'refused'
      }
    ),
    { numRuns: 100 }
  )
})
