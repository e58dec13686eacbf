import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { formatFinding, nearest } from '../../../src/config/findings.ts'

describe('the nearest name', () => {
  test.each([
    ['lisen', 'listen'],
    ['min_use', 'minUse'],
    ['ALLOWHOSTS', 'allowHosts'],
    ['tokneUrl', 'tokenUrl'],
    ['retries', 'retry'],
    ['x', undefined],
    ['completely-different', undefined],
    ['', undefined]
  ])('to %j is %j', (word, expected) => {
    expect(nearest(word, ['listen', 'minUse', 'allowHosts', 'tokenUrl', 'retry'])).toBe(expected)
  })

  test('is the name itself where it is there, and always one of the candidates', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.stringMatching(/^[a-z]{3,12}$/), { minLength: 1, maxLength: 8 }),
        fc.nat(),
        fc.string({ maxLength: 200 }),
        (names, pick, word) => {
          const name = names[pick % names.length] ?? ''
          const found = nearest(word, names)
          return nearest(name, names) === name && (found === undefined || names.includes(found))
        }
      )
    )
  })
})

describe('a finding', () => {
  test('reads file, line, key and message', () => {
    expect(formatFinding({ file: 'a.yaml', line: 3, key: 'listen', message: 'is wrong' })).toBe('a.yaml:3: listen: is wrong')
    expect(formatFinding({ file: 'a.yaml', line: 1, key: 'a\nb\u001b[31m', message: 'is wrong' })).toBe('a.yaml:1: a\\u000ab\\u001b[31m: is wrong')
    expect(formatFinding({ file: 'a.yaml', line: undefined, key: '', message: 'is empty' })).toBe('a.yaml: is empty')
  })
})
