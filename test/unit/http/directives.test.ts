import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { deltaSeconds, fieldNames, parseDirectives } from '../../../src/http/directives.ts'

function parsed(text: string): Record<string, readonly (string | undefined)[]> {
  return Object.fromEntries(parseDirectives(text).all)
}

describe('RFC 9111 §5.2: cache directives', () => {
  test('names are case-insensitive, arguments tokens or quoted strings, both forms accepted', () => {
    expect(parsed('No-Store, MAX-age=60, private="a, b", x="\\"q\\\\"')).toEqual({
      'no-store': [undefined],
      'max-age': ['60'],
      private: ['a, b'],
      x: ['"q\\']
    })
  })

  test('blanks around commas and empty members mean nothing', () => {
    expect(parsed(' , max-age=1 ,,\tfoo , ')).toEqual({ 'max-age': ['1'], foo: [undefined] })
  })

  test('what is inside quotes is no directive', () => {
    expect(parsed('ext="max-age=3600, no-store", max-age=1')).toEqual({ ext: ['max-age=3600, no-store'], 'max-age': ['1'] })
  })

  test('repeated directives are all kept, in order', () => {
    expect(parsed('max-age=1, max-age=2, max-age')).toEqual({ 'max-age': ['1', '2', undefined] })
  })

  test.each([
    'max-age =60',
    'max-age= 60',
    "max-age='60'",
    'max-age="60"x',
    'max-age=6 0',
    'max-age=60;a=b',
    'max-age=60.0',
    'max-age=-60',
    'max-age=a60',
    'max-age='
  ])('%s names the directive, but its value is none', (text) => {
    const [argument] = parsed(text)['max-age'] ?? []
    expect(argument).toBeDefined()
    expect(deltaSeconds(argument)).toBeUndefined()
  })

  test('an unclosed quote hides nothing, and what is malformed is marked', () => {
    const { all, malformed } = parseDirectives('foo="bar, no-store, max-age=60')
    expect(malformed).toBe(true)
    expect(all.has('no-store')).toBe(true)
    expect(parseDirectives('foo="bar", no-store').malformed).toBe(false)
  })

  test('a list beyond any measure means no-store', () => {
    const { all, malformed } = parseDirectives(`max-age=60, ${'x, '.repeat(20_000)}`)
    expect([all.has('no-store'), malformed]).toEqual([true, true])
  })

  test('never throws, and finds no-store wherever it stands alone between commas', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (before, after) => {
        const clean = before.replaceAll('"', '')
        expect(parseDirectives(`${clean},no-store,${after.replaceAll('"', '')}`).all.has('no-store')).toBe(true)
        parseDirectives(before + after)
      })
    )
  })

  test('seconds beyond what there is count as 2^31 (§1.2.2); leading zeros are fine', () => {
    expect(['0', '003600', '2147483647', '2147483649', '99999999999', '9'.repeat(400)].map(deltaSeconds)).toEqual([
      0,
      3600,
      2 ** 31 - 1,
      2 ** 31,
      2 ** 31,
      2 ** 31
    ])
  })

  test('a list of field names is one only if all of it is', () => {
    expect(fieldNames(' X-A ,x_b,')).toEqual(['x-a', 'x_b'])
    for (const text of ['', ' ', ',', 'x y', '"x"', 'x, y z']) expect(fieldNames(text)).toBeUndefined()
  })
})
