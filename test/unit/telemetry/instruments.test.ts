import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { metrics } from '../../../src/telemetry/metrics.ts'

const upstream = 'up'
const ATTEMPT = { kind: 'attempt', upstream, operation: 'other', code: '200', result: 'success' } as const

/** The lines of one metric, by what stands before the value. */
async function linesOf(counted: ReturnType<typeof metrics>, name: string): Promise<Map<string, number>> {
  const lines = (await counted.text()).split('\n').filter((line) => line.startsWith(name))
  return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.slice(line.lastIndexOf(' ') + 1))]))
}

function fresh(): ReturnType<typeof metrics> {
  return metrics({ version: '0', node: '0' })
}

describe('what is counted is what is shown', () => {
  it('histograms: every bucket holds what is at or below its bound, sum and count hold everything', async () => {
    const durations = fc.array(fc.oneof(fc.double({ min: 0, max: 400_000, noNaN: true }), fc.constantFrom(0, 0.5, 1, 2.5, 150_000, 150_001)), {
      minLength: 1,
      maxLength: 40
    })
    await fc.assert(
      fc.asyncProperty(durations, async (all) => {
        const counted = fresh()
        counted.count({ kind: 'attempt-started', upstream })
        for (const durationMs of all) counted.count({ ...ATTEMPT, durationMs })
        const lines = await linesOf(counted, 'attache_attempt_duration_seconds')
        const seconds = all.map((ms) => ms / 1000)
        for (const [line, value] of lines) {
          const le = /le="([^"]+)"/.exec(line)?.[1]
          if (le === undefined) continue
          const bound = le === '+Inf' ? Infinity : Number(le)
          expect(value).toBe(seconds.filter((one) => one <= bound).length)
        }
        expect(lines.get(`attache_attempt_duration_seconds_count{upstream="up"}`)).toBe(all.length)
        expect(lines.get(`attache_attempt_duration_seconds_sum{upstream="up"}`)).toBeCloseTo(
          seconds.reduce((sum, one) => sum + one, 0),
          6
        )
      }),
      { numRuns: 50 }
    )
  })

  it('asking twice counts nothing twice', async () => {
    const counted = fresh()
    counted.count({ ...ATTEMPT, durationMs: 5 })
    counted.count({ kind: 'retry', upstream, reason: '503', waitMs: 1 })
    const first = await linesOf(counted, 'attache_')
    expect(await linesOf(counted, 'attache_')).toEqual(first)
    expect(first.get('attache_retries_total{upstream="up",reason="503"}')).toBe(1)
  })

  it('gauges show the last value, up and down', async () => {
    const counted = fresh()
    counted.count({ kind: 'attempt-started', upstream })
    counted.count({ kind: 'attempt-started', upstream })
    counted.count({ ...ATTEMPT, durationMs: 1 })
    expect((await linesOf(counted, 'attache_in_flight')).get('attache_in_flight{upstream="up"}')).toBe(1)
  })

  it('at most 2,000 series per metric, whatever comes; the rest is counted under `other` and nothing is lost', async () => {
    const counted = fresh()
    for (let i = 0; i < 5000; i++) counted.count({ kind: 'retry', upstream, reason: `made-up-${i}`, waitMs: 1 })
    const lines = await linesOf(counted, 'attache_retries_total')
    expect(lines.size).toBe(2000)
    expect([...lines.values()].reduce((sum, value) => sum + value, 0)).toBe(5000)
    expect(lines.get('attache_retries_total{upstream="other",reason="other"}')).toBe(3001)
  })

  it('quotes what must be quoted in label values', async () => {
    const counted = fresh()
    counted.count({ kind: 'retry', upstream: 'a"b\\c\nd', reason: '503', waitMs: 1 })
    expect(await counted.text()).toContain(String.raw`attache_retries_total{upstream="a\"b\\c\nd",reason="503"} 1`)
  })
})
