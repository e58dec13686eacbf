import { describe, expect, test } from 'vitest'
import { noticeOf, parseLinks } from '../../../src/http/notices.ts'

const NOW = Date.UTC(2026, 5, 1)
const read = (fields: string[], status = 200) => noticeOf(status, fields, () => NOW)

describe('notices of a provider', () => {
  test('an ordinary answer gives none', () => {
    expect(read(['Content-Type', 'text/plain', 'Link', '<next>; rel=next', 'Warning', '110 - "stale"'])).toBeUndefined()
  })

  test.each([
    ['the structured date of RFC 9745', '@1688169599', 1688169599000],
    ['a structured date with parameters', '@1688169599;a=1', 1688169599000],
    ['an HTTP-date of the drafts', 'Fri, 30 Jun 2023 23:59:59 GMT', 1688169599000],
    ['bare epoch seconds', '1688169599', 1688169599000],
    ['the drafts’ true', 'true', undefined],
    ['a structured true', '?1', undefined]
  ])('deprecation is read from %s', (_form, value, at) => {
    expect(read(['Deprecation', value])).toMatchObject({ stage: 'deprecated', deprecatedAt: at })
  })

  test.each(['false', '?0', '', 'soon', '@', '@1.5x'])('%j deprecates nothing', (value) => {
    expect(read(['deprecation', value])).toBeUndefined()
  })

  test.each(['Mon, 01 Dec 2026 00:00:00 GMT', 'Tue, 01 Dec 2026 00:00:00 GMT', 'Tue, 01 Dec 2026 00:00:00 UTC'])(
    'sunset %s is read whatever the weekday or zone name',
    (value) => {
      expect(read(['SUNSET', value])).toMatchObject({ stage: 'deprecated', sunsetAt: Date.UTC(2026, 11, 1) })
    }
  )

  test('a sunset that has passed is its own stage', () => {
    expect(read(['Sunset', 'Sun, 31 May 2026 00:00:00 GMT'])?.stage).toBe('sunset')
  })

  test('a sunset before the deprecation is called inconsistent', () => {
    expect(read(['Deprecation', '@1796083200', 'Sunset', 'Mon, 30 Nov 2026 00:00:00 GMT'])?.inconsistent).toBe(true)
    expect(read(['Deprecation', '@1688169599', 'Sunset', 'Mon, 30 Nov 2026 00:00:00 GMT'])?.inconsistent).toBe(false)
  })

  test('480 is a brownout, with or without fields', () => {
    expect(read([], 480)?.stage).toBe('brownout')
  })

  test('deprecated versions and a warning in words are weaker stages', () => {
    expect(read(['api-deprecated-versions', '1.0, 2.0'])?.stage).toBe('version-deprecated')
    expect(read(['Warning', '299 - "This endpoint is deprecated"'])?.stage).toBe('warning')
    expect(read(['Warning', '299 - "low disk"'])).toBeUndefined()
  })

  test('the link that explains the deprecation is found among others', () => {
    const link =
      '<https://a.test/x,y>; title="a, b; rel=\\"sunset\\""; rel="next", <https://a.test/new>; rel="successor-version", <https://a.test/why>; REL="other deprecation"'
    expect(read(['Deprecation', 'true', 'Link', link])?.link).toBe('https://a.test/why')
    expect(read(['Deprecation', 'true', 'Link', '<https://a.test/s>; rel=sunset; rel=deprecation'])?.link).toBe('https://a.test/s')
  })

  test('a link alone is no notice: it may only explain the policy', () => {
    expect(read(['Link', '<https://a.test/policy>; rel="deprecation"'])).toBeUndefined()
  })

  test('malformed links are skipped, not fatal', () => {
    expect(parseLinks('nonsense, <a; rel=x')).toEqual([])
    expect(parseLinks('nonsense, <b>; rel="unclosed')).toEqual([{ target: 'b', relations: ['unclosed'] }])
  })
})
