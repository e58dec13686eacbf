import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { ROOT } from '../../src/package.ts'

test('every test that docs/rfc9111.md names exists', () => {
  const sources = globSync(['test/unit/**/*.test.ts', 'test/wire/*.test.ts'], { cwd: ROOT })
    .map((file) => readFileSync(join(ROOT, file), 'utf8').replaceAll("\\'", "'"))
    .join('\n')
  const page = readFileSync(join(ROOT, 'docs/rfc9111.md'), 'utf8')
  const rows = page.split('\n').filter((line) => /^\| [\d.]/.test(line))
  expect(rows.length).toBeGreaterThan(70)
  // names are sentences; other code on the page is fields, directives and files
  const named = [...page.matchAll(/`([^`]+)`/g)].map(([, name]) => name ?? '').filter((name) => name.split(' ').length > 3)
  expect(named.length).toBeGreaterThan(100)
  expect(named.filter((name) => !sources.includes(name))).toEqual([])
  // a requirement without a test is a wish
  expect(rows.filter((row) => !named.some((name) => row.includes(name)))).toEqual([])
})
