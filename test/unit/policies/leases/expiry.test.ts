import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { httpDate } from '../../../../src/http/http-date.ts'
import { EXPIRES, validityReader } from '../../../../src/policies/leases/expiry.ts'

const NOW = Date.UTC(2026, 5, 1, 12)
const HOUR = 3_600_000

function validity(expires: string, body: string, fields: readonly string[] = []): number | undefined {
  return validityReader(expires)(body, fields, NOW)
}

describe('field:PATH', () => {
  test.each([
    ['an ISO date', { expiresAt: '2026-06-01T13:00:00Z' }],
    ['with fractions of a second', { expiresAt: '2026-06-01T13:00:00.000000000Z' }],
    ['with an offset', { expiresAt: '2026-06-01T15:00:00+02:00' }],
    ['without a zone, which means UTC', { expiresAt: '2026-06-01T13:00' }],
    ['with a space', { expiresAt: '2026-06-01 13:00:00' }],
    ['an HTTP date', { expiresAt: 'Mon, 01 Jun 2026 13:00:00 GMT' }],
    ['epoch seconds', { expiresAt: (NOW + HOUR) / 1000 }],
    ['epoch seconds as text', { expiresAt: String((NOW + HOUR) / 1000) }],
    ['epoch milliseconds', { expiresAt: NOW + HOUR }],
    ['seconds left', { expiresAt: 3600 }],
    ['seconds left as text', { expiresAt: '3600' }]
  ])('reads %s', (_name, body) => {
    expect(validity('field:expiresAt', JSON.stringify(body))).toBe(HOUR)
  })

  test('finds a member deep inside, in lists too', () => {
    const body = JSON.stringify({ data: [{ 'access-key': { end: 60 } }] })
    expect(validity('field:data.0.access-key.end', body)).toBe(60_000)
    expect(validity('field:data.1.access-key.end', body)).toBeUndefined()
    expect(validity('field:data.length', body)).toBeUndefined()
    expect(validity('field:constructor.name', body)).toBeUndefined()
  })

  test.each([
    ['no JSON', 'Endpoint=sb://…'],
    ['no such member', '{}'],
    ['a date that is over', '{"expiresAt":"2026-06-01T11:59:59Z"}'],
    ['no time left', '{"expiresAt":0}'],
    ['negative seconds', '{"expiresAt":-5}'],
    ['words', '{"expiresAt":"soon"}'],
    ['a day that is none', '{"expiresAt":"2026-13-45T00:00:00Z"}'],
    ['null', '{"expiresAt":null}'],
    ['an object', '{"expiresAt":{}}']
  ])('gives nothing for %s', (_name, body) => {
    expect(validity('field:expiresAt', body)).toBeUndefined()
  })

  test('counts a date by the clock of the service, so that ours may be wrong', () => {
    const body = JSON.stringify({ expiresAt: '2026-06-01T13:00:00Z' })
    expect(validity('field:expiresAt', body, ['Date', httpDate(NOW - 5 * 60_000)])).toBe(HOUR + 5 * 60_000)
    expect(validity('field:expiresAt', body, ['Date', 'nonsense'])).toBe(HOUR)
    expect(validity('field:expiresAt', '{"expiresAt":60}', ['Date', httpDate(NOW - 5 * 60_000)])).toBe(60_000)
  })

  test('counts by our own clock where the two agree: `Date` hides up to a second, which a short lease does not have', () => {
    const body = JSON.stringify({ expiresAt: '2026-06-01T12:00:05Z' })
    for (const aheadMs of [-900, 0, 2_000]) expect(validity('field:expiresAt', body, ['Date', httpDate(NOW + aheadMs)])).toBe(5_000)
  })

  test('is never longer than a year', () => {
    expect(validity('field:expiresAt', '{"expiresAt":"2999-01-01"}')).toBe(365 * 24 * HOUR)
  })
})

describe('sas', () => {
  const seconds = (NOW + HOUR) / 1000
  test.each([
    ['a service bus signature', `SharedAccessSignature sr=https%3a%2f%2fns.example%2fq&sig=a%2Fse%3D&se=${seconds}&skn=send`],
    ['a storage signature', 'sv=2024-11-04&st=2026-06-01T11%3A00%3A00Z&se=2026-06-01T13%3A00%3A00Z&sr=c&sp=r&spr=https&sig=x%3D'],
    ['a storage signature without seconds', 'https://a.example/c?se=2026-06-01T13%3A00Z&sig=x'],
    ['one in JSON that escapes ampersands', `{"url":"https://a.example/?sp=r\\u0026se=2026-06-01T13%3A00%3A00Z\\u0026sig=x"}`],
    ['one in JSON that escapes equal signs too', `{"url":"sr\\u003dq\\u0026se\\u003d${seconds}\\u0026sig\\u003dx"}`],
    ['an encoded connection string', `{"connectionString":"Endpoint=sb://x/;SharedAccessSignature=sr%3dq%26se%3d${seconds}"}`],
    ['one encoded twice', 'SharedAccessSignature=sr%3Dq%26se%3D2026-06-01T13%253A00%253A00Z%26sig%3Dx'],
    ['one in HTML', `sr=q&amp;se=${seconds}&amp;sig=x`],
    ['the earliest of several', `se=${seconds + 60}&a=1;se=${seconds}`]
  ])('finds %s', (_name, body) => {
    expect(validity('sas', body)).toBe(HOUR)
  })

  test.each([
    ['none', 'AccountKey=abc'],
    ['another parameter that ends alike', `use=${seconds}&sse=${seconds}`],
    ['an empty one', 'se=&sig=x'],
    ['one that is over', 'se=1700000000'],
    ['one that is no date', 'se=whenever-you-like']
  ])('gives nothing for %s', (_name, body) => {
    expect(validity('sas', body)).toBeUndefined()
  })
})

describe('a duration', () => {
  test('is the same whatever the answer says', () => {
    expect(validity('1h', 'anything')).toBe(HOUR)
    expect(validity('1.5s', '')).toBe(1500)
    expect(validity('0s', '')).toBeUndefined()
  })
})

test('whatever the body, a validity is positive and finite or there is none', () => {
  const body = fc.oneof(
    fc.string(),
    fc.json(),
    fc.record({ expiresAt: fc.anything() }).map((value) => JSON.stringify(value) ?? ''),
    fc.string().map((end) => `se=${end}`)
  )
  fc.assert(
    fc.property(body, fc.constantFrom('sas', 'field:expiresAt', 'field:a.b'), (text, expires) => {
      const found = validity(expires, text)
      return found === undefined || (found > 0 && found <= 365 * 24 * HOUR)
    })
  )
})

test('the schema knows the three forms and no other', () => {
  const pattern = new RegExp(EXPIRES)
  expect(['sas', '1h', '90s', 'field:a', 'field:a.b.0'].filter((text) => !pattern.test(text))).toEqual([])
  expect(['', 'SAS', 'field:', 'field:a..b', 'field:.a', '1', 'h', 'field: a', '1h 2m'].filter((text) => pattern.test(text))).toEqual([])
})
