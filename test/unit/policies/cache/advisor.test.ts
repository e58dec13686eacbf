import { describe, expect, test } from 'vitest'
import { advisor, type Advice, type Advisor } from '../../../../src/policies/cache/advisor.ts'
import { cached } from '../../../support/cached.ts'
import { testClock, type TestClock } from '../../../support/clock.ts'
import { answerOf } from '../../../support/policy-call.ts'

const OPERATION = 'GET /items/{id}'

function watching(): { clock: TestClock; counsel: Advisor; only: () => Advice } {
  const clock = testClock()
  const counsel = advisor(clock)
  return {
    clock,
    counsel,
    only() {
      const [advice, ...others] = counsel.advice()
      if (advice === undefined || others.length > 0) throw new Error(`${others.length + 1} operations`)
      return advice
    }
  }
}

describe('lifetimes that would be worth having', () => {
  test('a thing that stays the same: the shortest that saves most', async () => {
    const { clock, counsel, only } = watching()
    // once every 20 s for ten minutes
    for (let n = 0; n < 30; n++) {
      counsel.saw(OPERATION, 'k', answerOf(200, 'same'))
      await clock.advance(20_000)
    }
    const advice = only()
    expect(advice).toMatchObject({ operation: OPERATION, calls: 30, judged: 30, repeated: 29 })
    // 10 s never helps, 30 s at every second call, a minute at two of three, from a quarter of an hour on only the first is made
    expect(advice.trials.map(({ saved }) => saved)).toEqual([0, 15, 20, 28, 29, 29, 29, 29])
    expect(advice.trials.every(({ outdated }) => outdated === 0)).toBe(true)
    expect(advice.suggested).toEqual({ ttlMs: 900_000, saved: 29, outdated: 0 })
  })

  test('a thing that changes: none that would give what is no longer so', async () => {
    const { clock, counsel, only } = watching()
    // asked for every 5 s, another one every 60 s
    for (let n = 0; n < 240; n++) {
      counsel.saw(OPERATION, 'k', answerOf(200, `version ${Math.floor(n / 12)}`))
      await clock.advance(5_000)
    }
    const { trials, suggested } = only()
    expect(trials.map(({ outdated }) => outdated > 0)).toEqual([false, false, false, true, true, true, true, true])
    expect(suggested).toEqual({ ttlMs: 60_000, saved: 220, outdated: 0 })
  })

  test('things are told apart: different keys repeat nothing, and neither do different bodies', async () => {
    const { counsel, only } = watching()
    for (let n = 0; n < 50; n++) counsel.saw(OPERATION, `k${n}`, answerOf(200, 'same'))
    for (let n = 0; n < 50; n++) counsel.saw(OPERATION, 'k0', answerOf(200, `body ${n}`))
    expect(only()).toMatchObject({ calls: 100, judged: 100, repeated: 0, suggested: undefined })
  })

  test('only 200s of the provider count; large and streamed ones are counted, not compared', () => {
    const { counsel, only } = watching()
    counsel.saw(OPERATION, 'k', answerOf(404, 'none'))
    counsel.saw(OPERATION, 'k', { ...answerOf(200, 'held'), source: 'cache' })
    counsel.saw(OPERATION, 'k', answerOf(200, 'x'.repeat(64 * 1024 + 1)))
    counsel.saw(OPERATION, 'k', answerOf(200, 'x'.repeat(64 * 1024)))
    expect(only()).toMatchObject({ calls: 2, judged: 1 })
  })

  test('are measured within bounds: a hundred comparisons a second, a thousand things, 500 operations', async () => {
    const { clock, counsel } = watching()
    for (let n = 0; n < 150; n++) counsel.saw(OPERATION, 'k', answerOf(200, 'same'))
    expect(counsel.advice()[0]).toMatchObject({ calls: 150, judged: 100 })
    await clock.advance(1_000)
    // the first of more things than are remembered is new again when it comes back
    for (let n = 0; n <= 1_000; n++) {
      if (n % 100 === 0) await clock.advance(1_000)
      counsel.saw('other things', `k${n}`, answerOf(200, 'same'))
    }
    counsel.saw('other things', 'k0', answerOf(200, 'same'))
    expect(counsel.advice()[1]).toMatchObject({ calls: 1_002, judged: 1_002, repeated: 0 })
    for (let n = 0; n < 2_000; n++) counsel.saw(`operation ${n}`, 'k', answerOf(200, 'same'))
    const advice = counsel.advice()
    expect(advice).toHaveLength(500)
    expect(advice.reduce((sum, { calls }) => sum + calls, 0)).toBe(150 + 1_002 + 2_000)
  })
})

test('the cache measures what went upstream for a plain GET, and nothing else', async () => {
  const room = cached()
  const ask = (fields: readonly string[] = []) => room.get('/a', fields, { operation: OPERATION })
  room.origin({ body: 'same' })
  await ask()
  await ask()
  await ask(['Cache-Control', 'no-cache'])
  await room.send('HEAD', '/a')
  room.origin({ body: 'same', fields: ['Cache-Control', 'max-age=60'] })
  await room.clock.advance(60_000)
  await ask()
  await ask()
  expect(room.cache.advice()).toMatchObject([{ operation: OPERATION, calls: 3, judged: 3, repeated: 2 }])
})
