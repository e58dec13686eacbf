import { parseList } from 'structured-headers'
import { describe, expect, test } from 'vitest'
import { forwarded, hit } from '../../../src/http/cache-status.ts'

describe('RFC 9211: Cache-Status', () => {
  test.each([
    hit(376),
    hit(-5, 'stale-while-revalidate'),
    hit(0, 'local-negative'),
    forwarded('uri-miss', { status: 200, isStored: true }),
    forwarded('vary-miss', { isCollapsed: true }),
    forwarded('stale', { status: 304, ttlS: 60, detail: 'upstream-unreachable' })
  ])('is a member of a Structured List: %s', (text) => {
    const [[item, parameters] = []] = parseList(`attache; ${text}`)
    expect(String(item)).toBe('attache')
    expect(parameters?.has('hit')).toBe(!parameters?.has('fwd'))
  })
})
