import { describe, expect, test } from 'vitest'
import { requestControl, responseControl } from '../../../src/http/cache-control.ts'

function control(...values: string[]) {
  return responseControl(
    values.flatMap((value) => ['Cache-Control', value]),
    'shared'
  )
}

describe('RFC 9111 §4.2.1: several values, most restrictive reading', () => {
  test('of two lifetimes the shorter counts, on one line or on two', () => {
    expect(control('max-age=1800, max-age=1').maxAgeS).toBe(1)
    expect(control('max-age=1', 'max-age=1800').maxAgeS).toBe(1)
    expect(control('max-age=60, max-age=0').maxAgeS).toBe(0)
    expect(control('s-maxage=5, s-maxage=4').sharedMaxAgeS).toBe(4)
  })

  test('a lifetime that cannot be read is over, whatever stands beside it', () => {
    for (const value of ['max-age=abc', 'max-age', 'max-age=', 'max-age=-1', 'max-age=1.5', 'max-age=60, max-age=x']) expect(control(value).maxAgeS).toBe(0)
  })

  test('a quoted lifetime counts', () => {
    expect(control('max-age="60"').maxAgeS).toBe(60)
  })

  test('no lifetime is no lifetime', () => {
    expect(control('public').maxAgeS).toBeUndefined()
    expect(control().maxAgeS).toBeUndefined()
  })

  test('prohibitions hold in any form, permissions only in the defined one', () => {
    expect(control('no-store=x, must-revalidate="y"')).toMatchObject({ isNoStore: true, isMustRevalidate: true })
    expect(control('public=x, immutable="1"')).toMatchObject({ isPublic: false, isImmutable: false })
    expect(control('public, public=x').isPublic).toBe(false)
  })

  test('the qualified forms list fields; unqualified once is unqualified', () => {
    expect(control('no-cache="A, b"', 'no-cache=c')).toMatchObject({ isNoCache: false, noCacheFields: ['a', 'b', 'c'] })
    expect(control('no-cache="a", no-cache')).toMatchObject({ isNoCache: true, noCacheFields: [] })
    expect(control('no-cache="\tset-cookie"').noCacheFields).toEqual(['set-cookie'])
    expect(control('private=" authorization"').privateFields).toEqual(['authorization'])
    expect(control('private=""').isPrivate).toBe(true)
  })

  test('an unclosed quote takes every permission away', () => {
    expect(control('public, immutable, max-age=60, s-maxage=60, stale-if-error=60, stale-while-revalidate=60, x="')).toMatchObject({
      isPublic: false,
      isImmutable: false,
      maxAgeS: 0,
      sharedMaxAgeS: 0,
      staleIfErrorS: 0,
      staleWhileRevalidateS: 0
    })
  })
})

describe('RFC 9213: targeted fields', () => {
  const read = (name: string, value: string, mode: 'private' | 'shared' = 'shared') => responseControl(['Cache-Control', 'max-age=1', name, value], mode)

  test('the first valid one on the list counts, and then no other', () => {
    expect(read('Attache-Cache-Control', 'max-age=60')).toMatchObject({ maxAgeS: 60, isTargeted: true })
    expect(responseControl(['CDN-Cache-Control', 'max-age=5', 'Attache-Cache-Control', 'max-age=60, private'], 'shared')).toMatchObject({
      maxAgeS: 60,
      isPrivate: true
    })
    expect(read('CDN-Cache-Control', 'no-store')).toMatchObject({ isNoStore: true, maxAgeS: undefined })
  })

  test('CDN-Cache-Control is for shared caches', () => {
    expect(read('CDN-Cache-Control', 'max-age=60', 'private')).toMatchObject({ maxAgeS: 1, isTargeted: false })
  })

  test('it is a Structured Field: numbers are integers, names lower case, lists strings, parameters mean nothing', () => {
    expect(read('CDN-Cache-Control', 'max-age=60;x=1, foo=(a b), no-cache="a, b", must-revalidate=?0')).toMatchObject({
      maxAgeS: 60,
      noCacheFields: ['a', 'b'],
      isMustRevalidate: false
    })
    for (const broken of ['MaX-aGe=60', 'max-age=60, &&&', 'max-age="60"', 'max-age=60.5', 'max-age', 'max-age =60', ' ']) {
      expect(read('CDN-Cache-Control', broken).isTargeted).toBe(false)
    }
    expect(read('CDN-Cache-Control', 'max-age=-60').maxAgeS).toBe(0)
    expect(read('CDN-Cache-Control', 'max-age=99999999999').maxAgeS).toBe(2 ** 31)
  })
})

describe('RFC 9111 §5.2.1: request directives', () => {
  const ask = (value: string) => requestControl(['Cache-Control', value])

  test('are read', () => {
    expect(ask('no-cache, No-Store, only-if-cached, max-age=1, min-fresh=2, max-stale=3, stale-if-error=4')).toEqual({
      isNoCache: true,
      isNoStore: true,
      isOnlyIfCached: true,
      maxAgeS: 1,
      minFreshS: 2,
      maxStaleS: 3,
      staleIfErrorS: 4
    })
  })

  test('max-stale without a value is any age; with one that cannot be read it is none', () => {
    expect(ask('max-stale').maxStaleS).toBe(Infinity)
    expect(ask('max-stale=x').maxStaleS).toBe(0)
    expect(ask('foo').maxStaleS).toBeUndefined()
  })

  test('of several values the one that asks for more freshness counts', () => {
    expect(ask('max-age=9, max-age=1, min-fresh=1, min-fresh=9, max-stale=9, max-stale=1')).toMatchObject({ maxAgeS: 1, minFreshS: 9, maxStaleS: 1 })
  })

  test('Pragma counts without Cache-Control only', () => {
    expect(requestControl(['Pragma', 'x, No-Cache']).isNoCache).toBe(true)
    expect(requestControl(['Pragma', 'no-cache', 'Cache-Control', 'max-age=1']).isNoCache).toBe(false)
  })
})
