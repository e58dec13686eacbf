import { describe, expect, test } from 'vitest'
import type { Agreement, Bound } from '../../../src/agreements/agreement.ts'
import { breaches } from '../../../src/agreements/bounds.ts'

function agreement(...bounds: Omit<Bound, 'clause' | 'why' | 'written'>[]): Agreement {
  return {
    name: 'test',
    title: 'Test agreement',
    file: 'test.yaml',
    defaults: { upstream: {}, credential: {} },
    bounds: bounds.map((bound, index) => ({ clause: `XX-${10 + index}`, why: 'so it was agreed', written: 'W', ...bound })),
    requires: []
  }
}

const minute = { count: 100, windowMs: 60_000, label: '100/1m' }
const rate = (count: number, windowMs: number) => ({ count, windowMs, label: '' })

describe('a bound', () => {
  test.each([
    ['at least', { min: 3 }, 3, true],
    ['at least', { min: 3 }, 2, false],
    ['at least, where nothing is set', { min: 3 }, undefined, false],
    ['at most', { max: 30 }, 30, true],
    ['at most', { max: 30 }, 31, false],
    ['at most, where nothing is set', { max: 30 }, undefined, false],
    ['a ladder, step by step', { min: [10, 30, 60] }, [10, 30, 60], true],
    ['a ladder that is climbed less far', { min: [10, 30, 60] }, [10, 30], true],
    ['a longer ladder', { min: [10, 30, 60] }, [10, 30, 60, 60], true],
    ['a ladder that gets shorter again', { min: [10, 30, 60] }, [10, 30, 60, 10], false],
    ['a ladder with one short step', { min: [10, 30, 60] }, [10, 20, 60], false],
    ['no ladder at all', { min: [10, 30, 60] }, undefined, false],
    ['a list that holds all', { includes: [500, 503] }, [503, 500, 502], true],
    ['a list that lacks one', { includes: [500, 503] }, [503], false],
    ['no rate', { atMost: minute }, [], false],
    ['the rate itself', { atMost: minute }, [rate(100, 60_000)], true],
    ['a higher rate', { atMost: minute }, [rate(101, 60_000)], false],
    ['a rate in a longer window', { atMost: minute }, [rate(100, 3_600_000)], true],
    ['a rate in a shorter window that adds up to less', { atMost: minute }, [rate(50, 30_000)], true],
    ['a rate in a shorter window that adds up to more', { atMost: minute }, [rate(2, 1000)], false],
    ['a window that does not divide', { atMost: minute }, [rate(60, 40_000)], false],
    ['one strict rate among several', { atMost: minute }, [rate(1000, 1000), rate(100, 60_000)], true]
  ])('%s: %j against %j is kept: %s', (_name, bound, value, kept) => {
    expect(breaches(agreement({ key: 'upstream.a.b', ...bound }), { upstream: { a: { b: value } } })).toHaveLength(kept ? 0 : 1)
  })

  test('that is broken names the clause, the agreement, and what was agreed', () => {
    expect(breaches(agreement({ key: 'upstream.a', min: 3 }), { upstream: { a: 1 } })).toEqual([
      { clause: 'XX-10', key: 'upstream.a', message: 'must be at least W, Test agreement XX-10: so it was agreed' }
    ])
  })

  test('on a part that is not looked at is not broken', () => {
    expect(breaches(agreement({ key: 'credential.minUse', min: 0.7 }), { upstream: {} })).toEqual([])
  })
})

describe('a requirement', () => {
  const tenant: Agreement = { ...agreement(), requires: [{ clause: 'XX-20', key: 'upstream.headers.S4-TenantId', matches: 'uuid', why: 'so it was agreed' }] }

  test.each([
    ['3f2b1c9e-0a1b-4c2d-8e3f-001122334455', true],
    ['3F2B1C9E-0A1B-4C2D-8E3F-001122334455', true],
    ['e02d3360-8a5f-4115-fef1-0123456789ab', true],
    ['{3f2b1c9e-0a1b-4c2d-8e3f-001122334455}', false],
    ['3f2b1c9e0a1b4c2d8e3f001122334455', false],
    ['', false],
    [undefined, false]
  ])('of a UUID is met by %j: %s', (value, met) => {
    expect(breaches(tenant, { upstream: { headers: { 's4-tenantid': value } } })).toHaveLength(met ? 0 : 1)
  })
})
