import { describe, expect, test } from 'vitest'
import { referencedTarget } from '../../../src/http/reference.ts'

const BASE = new URL('https://api.test/v1/')

describe('RFC 9111 §4.4: whose URI a reference is', () => {
  test.each([
    ['/v1/items/1', '/items/1'],
    ['items/1?a=b#c', '/items/items/1?a=b'],
    ['../x', '/x'],
    ['https://api.test/v1/x', '/x'],
    ['https://api.test:443/v1/x', '/x'],
    ['//api.test/v1/x', '/x'],
    ['', '/items/2?q=1']
  ])('%s is ours', (reference, target) => {
    expect(referencedTarget(reference, '/items/2?q=1', BASE)).toBe(target)
  })

  test.each(['/v2/x', '/v10/x', '/', 'http://api.test/v1/x', 'https://api.test:444/v1/x', 'https://evil.test/v1/x', 'https://', 'urn:x:y'])(
    '%s is not',
    (reference) => {
      expect(referencedTarget(reference, '/items/2', BASE)).toBeUndefined()
    }
  )

  test('without a known base only relative references are understood', () => {
    expect(referencedTarget('/x', '/items/2', undefined)).toBe('/x')
    expect(referencedTarget('https://api.test/x', '/items/2', undefined)).toBeUndefined()
  })
})
