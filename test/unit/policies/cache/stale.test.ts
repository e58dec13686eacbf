import { PassThrough } from 'node:stream'
import type { Signal } from '../../../../src/exchange/signal.ts'
import { describe, expect, test } from 'vitest'
import { CallerGone, Problem, type ProblemCode } from '../../../../src/exchange/problem.ts'
import { field } from '../../../../src/http/fields.ts'
import { cached, textOf, type Cached, type CachedSetup, type Scripted } from '../../../support/cached.ts'

/** A room that holds an answer to /a which became stale `staleMs` ago. */
async function stale(fields: readonly string[], setup: CachedSetup = {}, staleMs = 5000): Promise<Cached> {
  const room = cached(setup)
  room.origin({ fields, body: 'one' })
  await room.get('/a')
  await room.clock.advance(60_000 + staleMs)
  return room
}

async function asked(room: Cached, failure: Scripted | Error, fields: readonly string[] = []): Promise<string> {
  room.origin(failure)
  try {
    const answer = await room.get('/a', fields)
    return answer.source === 'stale' ? 'stale' : String(answer.status)
  } catch (error) {
    return error instanceof Problem ? error.code : String(error)
  }
}

const UNREACHABLE = new Problem('upstream-unreachable')

describe('RFC 9111 §4.2.4: serving stale answers', () => {
  test('a stale answer is not used while the provider answers', async () => {
    const room = await stale(['Cache-Control', 'max-age=60'])
    expect(await asked(room, {})).toBe('200')
  })

  test.each(['upstream-unreachable', 'upstream-timeout', 'upstream-protocol', 'breaker-open'] as const)(
    'disconnected (%s): the answer the provider had given a lifetime stands in for an hour',
    async (code) => {
      const room = await stale(['Cache-Control', 'max-age=60'])
      expect(await asked(room, new Problem(code))).toBe('stale')
      const old = await stale(['Cache-Control', 'max-age=60'], {}, 3_600_001)
      expect(await asked(old, new Problem(code))).toBe(code)
    }
  )

  test('the stale answer is the stored one, with its age, and says what it stands in for', async () => {
    const room = await stale(['Cache-Control', 'max-age=60'])
    room.origin(UNREACHABLE)
    const answer = await room.get('/a')
    expect(answer).toMatchObject({ status: 200, source: 'stale', cacheStatus: 'fwd=stale; detail=upstream-unreachable' })
    expect([await textOf(answer), field(answer.fields, 'age')]).toEqual(['one', '65'])
    expect(room.events.filter((event) => event.kind === 'cache').at(-1)).toMatchObject({ result: 'stale' })
  })

  test('a guessed or local lifetime is no permission to serve stale', async () => {
    const room = await stale([], { rules: [{ match: '/**', ttl: 60_000 }] })
    expect(await asked(room, UNREACHABLE)).toBe('upstream-unreachable')
  })

  test('an error answer of the provider goes to the caller unless somebody allows otherwise', async () => {
    const room = await stale(['Cache-Control', 'max-age=60'])
    expect(await asked(room, { status: 503 })).toBe('503')
  })

  test.each(['must-revalidate', 'no-cache', 'MUST-REVALIDATE'])('never past %s', async (directive) => {
    const room = await stale(['Cache-Control', `max-age=60, ${directive}, stale-if-error=600, stale-while-revalidate=600`, 'ETag', '"1"'], {
      staleIfError: 600_000
    })
    expect(await asked(room, UNREACHABLE)).toBe('upstream-unreachable')
    expect(await asked(room, { status: 500 })).toBe('500')
  })

  test.each(['proxy-revalidate', 's-maxage=60'])('%s forbids it to a shared cache, not to a private one', async (directive) => {
    const fields = ['Cache-Control', `max-age=60, ${directive}`]
    expect(await asked(await stale(fields, { mode: 'shared' }), UNREACHABLE)).toBe('upstream-unreachable')
    expect(await asked(await stale(fields), UNREACHABLE)).toBe('stale')
  })

  test.each([['max-age=600'], ['min-fresh=1'], ['no-cache'], ['max-age=0']])('a caller that asks %s does not want it', async (directive) => {
    const room = await stale(['Cache-Control', 'max-age=60'])
    expect(await asked(room, UNREACHABLE, ['Cache-Control', directive])).toBe('upstream-unreachable')
  })

  test.each(['draining', 'credential-rejected', 'spend-exhausted', 'internal'] satisfies ProblemCode[])(
    '%s is no reason to serve an old answer',
    async (code) => {
      const room = await stale(['Cache-Control', 'max-age=60, stale-if-error=600'], { staleIfError: 600_000 })
      expect(await asked(room, new Problem(code))).toBe(code)
    }
  )

  test('a caller whose time is up gets the stale answer, alone or waiting for others, and the call goes on for them', async () => {
    const room = await stale(['Cache-Control', 'max-age=60'])
    const answer = Promise.withResolvers<Scripted>()
    room.origin(() => answer.promise)
    const inTime = new AbortController()
    const [first, second] = [new AbortController(), new AbortController()]
    const callers = [first, second, inTime].map(({ signal }) => room.get('/a', [], { signal }))
    await room.clock.advance(0)
    first.abort(new Problem('upstream-timeout'))
    second.abort(new Problem('upstream-timeout'))
    for (const caller of callers.slice(0, 2)) expect(await caller).toMatchObject({ source: 'stale', status: 200 })
    answer.resolve({ fields: ['Cache-Control', 'max-age=60'], body: 'two' })
    expect(await textOf((await callers[2]) ?? (await room.get('/a')))).toBe('two')
    expect(room.calls).toHaveLength(2)
  })

  test('a caller that has gone gets nothing', async () => {
    const room = await stale(['Cache-Control', 'max-age=60'])
    expect(await asked(room, new CallerGone())).toContain('CallerGone')
  })
})

describe('RFC 5861 §4: stale-if-error', () => {
  test.each([500, 502, 503, 504])('the provider’s stale-if-error covers a %i', async (status) => {
    const room = await stale(['Cache-Control', 'max-age=60, stale-if-error=5'])
    room.origin({ status })
    expect(await room.get('/a')).toMatchObject({ status: 200, source: 'stale', cacheStatus: `fwd=stale; fwd-status=${status}; detail=stale-if-error` })
  })

  test.each([400, 404, 429, 501])('and no %i', async (status) => {
    const room = await stale(['Cache-Control', 'max-age=60, stale-if-error=600'])
    expect(await asked(room, { status })).toBe(String(status))
  })

  test('a caller that allows staleness as well as it bounds the age is given a stand-in', async () => {
    const room = await stale(['Cache-Control', 'max-age=60'], { staleIfError: 600_000 })
    room.origin({ status: 500 })
    expect((await room.get('/a', ['Cache-Control', 'max-age=1, max-stale=0'])).source).toBe('stale')
  })

  test('it lasts as long as it says', async () => {
    const room = await stale(['Cache-Control', 'max-age=60, stale-if-error=5'], {}, 5001)
    expect(await asked(room, { status: 500 })).toBe('500')
    expect(await asked(room, UNREACHABLE)).toBe('upstream-unreachable')
  })

  test('the operator’s staleIfError counts where the provider says nothing', async () => {
    const setup = { staleIfError: 10_000 }
    expect(await asked(await stale(['Cache-Control', 'max-age=60'], setup), { status: 500 })).toBe('stale')
    expect(await asked(await stale(['Cache-Control', 'max-age=60'], setup, 10_001), { status: 500 })).toBe('500')
    expect(await asked(await stale(['Cache-Control', 'max-age=60, stale-if-error=1'], setup), { status: 500 })).toBe('500')
    expect(await asked(await stale(['Cache-Control', 'max-age=60'], { staleIfError: 0 }), UNREACHABLE)).toBe('upstream-unreachable')
  })

  test('a caller may allow it, and narrow what the provider allows', async () => {
    const room = await stale(['Cache-Control', 'max-age=60'])
    expect(await asked(room, { status: 500 }, ['Cache-Control', 'stale-if-error=10'])).toBe('stale')
    expect(await asked(room, { status: 500 }, ['Cache-Control', 'stale-if-error=4'])).toBe('500')
    const wide = await stale(['Cache-Control', 'max-age=60, stale-if-error=600'])
    expect(await asked(wide, { status: 500 }, ['Cache-Control', 'stale-if-error=4'])).toBe('500')
  })

  test.each(['upstream-wait', 'token-unavailable', 'volume-exhausted'] as const)(
    'where it is allowed it covers our own obstacles too (%s), without a call',
    async (code) => {
      const room = await stale(['Cache-Control', 'max-age=60'], { staleIfError: 10_000 })
      expect(await asked(room, new Problem(code))).toBe('stale')
      expect(await asked(await stale(['Cache-Control', 'max-age=60']), new Problem(code))).toBe(code)
    }
  )

  test('whoever waits for a better answer below is told that there is one to give instead', async () => {
    const room = await stale(['Cache-Control', 'max-age=60'], { staleIfError: 10_000 })
    await room.get('/a')
    const { standIn } = room.calls.at(-1) ?? {}
    expect((['upstream-unreachable', 'upstream-wait', 'bad-request'] as const).map((code) => standIn?.(new Problem(code)))).toEqual([true, true, false])
    const strict = await stale(['Cache-Control', 'max-age=60, must-revalidate'], { staleIfError: 10_000 })
    await strict.get('/a')
    expect(strict.calls.at(-1)?.standIn?.(new Problem('upstream-wait'))).toBe(false)
    await strict.get('/never-stored')
    expect(strict.calls.at(-1)?.standIn).toBeUndefined()
  })

  test.each([
    ['token-unavailable', 1],
    ['breaker-open', 0]
  ] as const)('an obstacle before any attempt is a call avoided, counted once: %s', async (code, counted) => {
    const room = await stale(['Cache-Control', 'max-age=60'], { staleIfError: 10_000 })
    room.origin((request) => {
      request.trace.attempts = 0
      throw new Problem(code)
    })
    expect(await room.get('/a')).toMatchObject({ source: 'stale', cacheStatus: `hit; ttl=-5; detail=${code}` })
    expect(room.events.filter((event) => event.kind === 'call-avoided' && event.reason === 'stale')).toHaveLength(counted)
  })
})

describe('RFC 5861 §3: stale-while-revalidate', () => {
  const FIELDS = ['Cache-Control', 'max-age=60, stale-while-revalidate=10', 'ETag', '"1"']

  test('the stale answer is served at once and one validation runs behind it', async () => {
    const room = await stale(FIELDS)
    const gate = Promise.withResolvers<void>()
    room.origin(async () => {
      await gate.promise
      return { fields: ['Cache-Control', 'max-age=60', 'ETag', '"2"'], body: 'two' }
    })
    for (let round = 0; round < 3; round++) {
      const answer = await room.get('/a', ['If-Modified-Since', 'Thu, 01 Jan 1970 00:00:00 GMT'])
      expect(answer).toMatchObject({ source: 'stale', cacheStatus: 'hit; ttl=-5; detail=stale-while-revalidate' })
      expect(await textOf(answer)).toBe('one')
    }
    expect(room.calls).toHaveLength(2)
    expect(room.calls[1]?.fields).toEqual(['If-None-Match', '"1"'])
    gate.resolve()
    await room.clock.advance(0)
    expect(await textOf(await room.get('/a'))).toBe('two')
    expect(room.calls).toHaveLength(2)
  })

  test('a 304 behind it renews the answer', async () => {
    const room = await stale(FIELDS)
    room.origin({ status: 304, fields: ['ETag', '"1"'] })
    await room.get('/a')
    await room.clock.advance(0)
    expect(await room.get('/a')).toMatchObject({ source: 'cache', cacheStatus: 'hit; ttl=60' })
  })

  test('the caller that sees it neither waits for it nor ends it by leaving', async () => {
    const room = await stale(FIELDS)
    const caller = new AbortController()
    let behind: Signal | undefined
    room.origin((request) => {
      behind = request.signal
      return new Promise(() => {})
    })
    await room.get('/a', [], { signal: caller.signal })
    caller.abort(new CallerGone())
    expect(behind?.aborted).toBe(false)
  })

  test('past the window it is validated before use', async () => {
    const room = await stale(FIELDS, {}, 10_000)
    expect(await asked(room, { body: 'two' })).toBe('200')
  })

  test('a failure behind it changes nothing for the callers', async () => {
    const room = await stale(FIELDS)
    room.origin(UNREACHABLE, { status: 500 }, { status: 304 })
    expect((await room.get('/a')).source).toBe('stale')
    await room.clock.advance(0)
    expect((await room.get('/a')).source).toBe('stale')
    await room.clock.advance(0)
    expect((await room.get('/a')).source).toBe('stale')
    await room.clock.advance(0)
    expect((await room.get('/a')).source).toBe('cache')
  })

  test('the operator’s staleWhileRevalidate counts where the provider says nothing', async () => {
    const room = await stale(['Cache-Control', 'max-age=60'], { staleWhileRevalidate: 6000 })
    expect(await asked(room, {})).toBe('stale')
    const other = await stale(['Cache-Control', 'max-age=60, stale-while-revalidate=1'], { staleWhileRevalidate: 6000 })
    expect(await asked(other, {})).toBe('200')
  })

  test('a caller that states how old its answer may be does not get a stale one', async () => {
    const room = await stale(FIELDS)
    expect(await asked(room, { body: 'two' }, ['Cache-Control', 'max-age=600'])).toBe('200')
  })

  test('it never runs past must-revalidate', async () => {
    const room = await stale(['Cache-Control', 'max-age=60, must-revalidate, stale-while-revalidate=600'])
    expect(await asked(room, {})).toBe('200')
  })
})

describe('a stale answer that is served at once', () => {
  test('is a call avoided', async () => {
    const room = await stale(['Cache-Control', 'max-age=60'])
    await room.get('/a', ['Cache-Control', 'max-stale'])
    expect(room.events.filter((event) => event.kind === 'call-avoided').map(({ reason }) => reason)).toEqual(['stale'])
  })

  test('is validated behind by a request of its own: neither the conditions nor the time nor the account of the caller are its', async () => {
    const room = await stale(['Cache-Control', 'max-age=60, stale-while-revalidate=60'])
    const trace = { attempts: 0, upstreamMs: 0, waitMs: 0, tokenMs: 0, sent: false }
    const deadlineAt = room.clock.now() + 10
    expect((await room.get('/a', ['If-None-Match', '"2"', 'If-Modified-Since', 'x'], { trace, deadlineAt })).source).toBe('stale')
    await room.clock.advance(0)
    const [, behind] = room.calls
    expect(behind?.trace).not.toBe(trace)
    expect(behind?.deadlineAt).toBeGreaterThan(deadlineAt)
    // a 304 to the caller's conditions would be about what the caller has
    expect(behind?.fields).toEqual([])
  })
})

test('the failure a stale answer stands in for is not left with its body unread', async () => {
  const room = await stale(['Cache-Control', 'max-age=60, stale-if-error=600'])
  const body = new PassThrough()
  room.origin({ response: { status: 500, fields: [], body: { kind: 'stream', stream: body, sizeBytes: undefined }, source: 'upstream' } })
  expect((await room.get('/a')).source).toBe('stale')
  expect(body.destroyed).toBe(true)
})
