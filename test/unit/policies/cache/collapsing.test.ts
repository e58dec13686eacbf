import { PassThrough, Readable } from 'node:stream'
import { describe, expect, test } from 'vitest'
import type { Request, Response } from '../../../../src/exchange/message.ts'
import { CallerGone, Problem } from '../../../../src/exchange/problem.ts'
import { cached, textOf, type Scripted } from '../../../support/cached.ts'

const FRESH = ['Cache-Control', 'max-age=60']

/** An origin that keeps its callers waiting: `answer` lets the oldest one go. */
function slowOrigin(): { origin: (request: Request) => Promise<Scripted>; answer(scripted: Scripted | Error): void; requests: Request[] } {
  const waiting: { resolve(scripted: Scripted): void; reject(error: unknown): void }[] = []
  const requests: Request[] = []
  return {
    requests,
    origin(request) {
      requests.push(request)
      return new Promise((resolve, reject) => {
        waiting.push({ resolve, reject })
        request.signal.addEventListener('abort', () => reject(request.signal.reason))
      })
    },
    answer(scripted) {
      const next = waiting.shift()
      if (scripted instanceof Error) next?.reject(scripted)
      else next?.resolve(scripted)
    }
  }
}

function streamed(stream: Readable, fields: readonly string[] = FRESH, sizeBytes?: number): Scripted {
  const response: Response = { status: 200, fields, body: { kind: 'stream', stream, sizeBytes }, source: 'upstream' }
  return { response }
}

describe('RFC 9111 §4: callers that want the same share one call', () => {
  test('a thousand callers cost one call, and all get the answer', async () => {
    const room = cached()
    const slow = slowOrigin()
    room.origin(slow.origin)
    const callers = Array.from({ length: 1000 }, () => room.get('/a'))
    await room.clock.advance(0)
    expect(slow.requests).toHaveLength(1)
    slow.answer({ fields: FRESH, body: 'shared' })
    const answers = await Promise.all(callers)
    expect(await Promise.all(answers.map(textOf))).toEqual(Array.from({ length: 1000 }, () => 'shared'))
    expect(answers.filter((answer) => answer.source === 'collapsed')).toHaveLength(999)
    expect(answers[1]?.cacheStatus).toBe('fwd=uri-miss; collapsed')
    expect(room.events.filter((event) => event.kind === 'call-avoided' && event.reason === 'collapsed')).toHaveLength(999)
  })

  test('an answer that took longer than it lasts is for those who waited, and for nobody after them', async () => {
    const room = cached()
    const slow = slowOrigin()
    room.origin(slow.origin)
    const callers = Array.from({ length: 3 }, () => room.get('/a'))
    await room.clock.advance(2000)
    slow.answer({ fields: ['Cache-Control', 'max-age=1'], body: 'slow' })
    expect(await Promise.all((await Promise.all(callers)).map(textOf))).toEqual(['slow', 'slow', 'slow'])
    expect(slow.requests).toHaveLength(1)
    room.origin({ body: 'next' })
    expect(await textOf(await room.get('/a'))).toBe('next')
  })

  test('but an old answer is shared by nobody, however long it took', async () => {
    const room = cached()
    const slow = slowOrigin()
    room.origin(slow.origin)
    const callers = Array.from({ length: 2 }, () => room.get('/a'))
    await room.clock.advance(2000)
    slow.answer({ fields: ['Cache-Control', 'max-age=60', 'Age', '60'], body: 'old' })
    await room.clock.advance(0)
    slow.answer({ fields: FRESH, body: 'own' })
    expect(await Promise.all((await Promise.all(callers)).map(textOf))).toEqual(['old', 'own'])
  })

  test.each([
    ['an error', { status: 503 }],
    ['no answer', new Problem('upstream-unreachable')]
  ] as const)('a failure met by one is met by nobody else whom the stored answer serves as well: %s', async (_what, failure) => {
    const room = cached({ staleIfError: 10_000 })
    const slow = slowOrigin()
    room.origin({ fields: FRESH, body: 'one' })
    await room.get('/a')
    await room.clock.advance(61_000)
    room.origin(slow.origin)
    for (const calls of [1, 2]) {
      const callers = Array.from({ length: 50 }, () => room.get('/a'))
      await room.clock.advance(0)
      expect(slow.requests).toHaveLength(calls)
      slow.answer(failure)
      expect((await Promise.all(callers)).map(({ source }) => source)).toEqual(Array.from({ length: 50 }, () => 'stale'))
    }
    expect(room.events.filter((event) => event.kind === 'call-avoided').map(({ reason }) => reason)).toEqual(Array.from({ length: 98 }, () => 'collapsed'))
  })

  test('a stale answer is validated once for all', async () => {
    const room = cached()
    const slow = slowOrigin()
    room.origin({ fields: [...FRESH, 'ETag', '"1"'], body: 'one' })
    await room.get('/a')
    await room.clock.advance(60_000)
    room.origin(slow.origin)
    const callers = [room.get('/a'), room.get('/a'), room.get('/a')]
    await room.clock.advance(0)
    slow.answer({ status: 304 })
    expect(await Promise.all((await Promise.all(callers)).map(textOf))).toEqual(['one', 'one', 'one'])
    expect(room.calls).toHaveLength(2)
  })

  test.each([
    ['no-store', ['Cache-Control', 'no-store']],
    ['no-cache', ['Cache-Control', 'no-cache', 'ETag', '"1"']],
    ['no lifetime', []],
    ['Vary: *', [...FRESH, 'Vary', '*']]
  ])('an answer with %s is for one caller: the others go on their own, and later ones do not wait', async (_what, fields) => {
    const room = cached()
    const slow = slowOrigin()
    room.origin(slow.origin)
    const callers = [room.get('/a'), room.get('/a'), room.get('/a')]
    await room.clock.advance(0)
    expect(slow.requests).toHaveLength(1)
    slow.answer({ fields, body: '1' })
    await room.clock.advance(0)
    expect(slow.requests).toHaveLength(3)
    const late = [room.get('/a'), room.get('/a')]
    await room.clock.advance(0)
    expect(slow.requests).toHaveLength(5)
    for (const body of ['2', '3', '4', '5']) slow.answer({ fields, body })
    const texts = await Promise.all([...callers, ...late].map(async (caller) => textOf(await caller)))
    expect(texts.toSorted()).toEqual(['1', '2', '3', '4', '5'])
  })

  test('an answer for other selecting fields is not shared', async () => {
    const room = cached()
    const slow = slowOrigin()
    room.origin(slow.origin)
    const callers = [room.get('/a', ['Foo', '1']), room.get('/a', ['Foo', '2'])]
    await room.clock.advance(0)
    slow.answer({ fields: [...FRESH, 'Vary', 'Foo'], body: 'one' })
    await room.clock.advance(0)
    slow.answer({ fields: [...FRESH, 'Vary', 'Foo'], body: 'two' })
    expect(await Promise.all((await Promise.all(callers)).map(textOf))).toEqual(['one', 'two'])
  })

  test('callers with conditions, ranges or wishes of their own do not wait for others', async () => {
    const room = cached()
    const slow = slowOrigin()
    room.origin(slow.origin)
    const callers = [
      room.get('/a'),
      room.get('/a', ['Range', 'bytes=0-1']),
      room.get('/a', ['If-None-Match', '"x"']),
      room.get('/a', ['Cache-Control', 'no-cache'])
    ]
    await room.clock.advance(0)
    expect(slow.requests).toHaveLength(4)
    for (const _caller of callers) slow.answer({ fields: FRESH })
    await Promise.all(callers)
  })
})

describe('a shared flight belongs to nobody', () => {
  test('the failure of the first caller’s call hurts no other: they try once more, together', async () => {
    const room = cached()
    const slow = slowOrigin()
    room.origin(slow.origin)
    const callers = [room.get('/a'), room.get('/a'), room.get('/a')]
    const settled = Promise.allSettled(callers)
    await room.clock.advance(0)
    slow.answer(new Problem('upstream-unreachable'))
    await room.clock.advance(0)
    expect(slow.requests).toHaveLength(2)
    slow.answer({ fields: FRESH, body: 'second' })
    const [first, ...others] = await settled
    expect(first).toMatchObject({ status: 'rejected', reason: { code: 'upstream-unreachable' } })
    for (const other of others) expect(other.status === 'fulfilled' && (await textOf(other.value))).toBe('second')
    expect(slow.requests).toHaveLength(2)
  })

  test('an error answer is the first caller’s alone', async () => {
    const room = cached()
    const slow = slowOrigin()
    room.origin(slow.origin)
    const callers = [room.get('/a'), room.get('/a')]
    await room.clock.advance(0)
    slow.answer({ status: 503 })
    await room.clock.advance(0)
    slow.answer({ fields: FRESH })
    expect((await Promise.all(callers)).map((answer) => answer.status)).toEqual([503, 200])
  })

  test('the first caller may leave: its wait ends at once, the others get the answer, and it is stored', async () => {
    const room = cached()
    const slow = slowOrigin()
    room.origin(slow.origin)
    const caller = new AbortController()
    const first = room.get('/a', [], { signal: caller.signal })
    const second = room.get('/a')
    await room.clock.advance(0)
    caller.abort(new CallerGone())
    await expect(first).rejects.toBeInstanceOf(CallerGone)
    expect(slow.requests[0]?.signal.aborted).toBe(false)
    slow.answer({ fields: FRESH, body: 'shared' })
    expect(await textOf(await second)).toBe('shared')
    expect((await room.get('/a')).source).toBe('cache')
    expect(slow.requests).toHaveLength(1)
  })

  test('the call ends when the last one who wanted it has left', async () => {
    const room = cached()
    const slow = slowOrigin()
    room.origin(slow.origin)
    const callers = [new AbortController(), new AbortController()]
    const asking = Promise.allSettled(callers.map((caller) => room.get('/a', [], { signal: caller.signal })))
    await room.clock.advance(0)
    const flight = slow.requests[0]?.signal
    callers[1]?.abort(new CallerGone())
    expect(flight?.aborted).toBe(false)
    callers[0]?.abort(new CallerGone())
    expect(flight?.aborted).toBe(true)
    expect((await asking).map((outcome) => outcome.status)).toEqual(['rejected', 'rejected'])
  })

  test('a lone caller that leaves ends its call', async () => {
    const room = cached()
    const slow = slowOrigin()
    room.origin(slow.origin)
    const caller = new AbortController()
    const asking = room.get('/a', [], { signal: caller.signal })
    await room.clock.advance(0)
    caller.abort(new CallerGone())
    await expect(asking).rejects.toBeInstanceOf(CallerGone)
    expect(slow.requests[0]?.signal.aborted).toBe(true)
  })

  test('a caller that has left already asks for nothing', async () => {
    const room = cached()
    const slow = slowOrigin()
    room.origin(slow.origin)
    const first = room.get('/a')
    await room.clock.advance(0)
    await expect(room.get('/a', [], { signal: AbortSignal.abort(new CallerGone()) })).rejects.toBeInstanceOf(CallerGone)
    slow.answer({ fields: FRESH })
    await first
  })
})

describe('bodies that arrive as a stream', () => {
  test('are passed on while they arrive, and stored when they are complete', async () => {
    const room = cached()
    const body = new PassThrough()
    room.origin(streamed(body))
    const answer = await room.get('/a')
    body.write('one ')
    const reader = answer.body.kind === 'stream' ? answer.body.stream[Symbol.asyncIterator]() : undefined
    expect(String((await reader?.next())?.value)).toBe('one ')
    expect(room.cache.entries).toBe(0)
    body.end('two')
    expect(String((await reader?.next())?.value)).toBe('two')
    expect((await reader?.next())?.done).toBe(true)
    await room.clock.advance(0)
    const hit = await room.get('/a')
    expect([hit.source, hit.body.kind, await textOf(hit)]).toEqual(['cache', 'bytes', 'one two'])
  })

  test('late joiners get the whole body, however slow its first reader is', async () => {
    const room = cached()
    const body = new PassThrough()
    room.origin(streamed(body))
    const first = await room.get('/a')
    body.write('x'.repeat(200_000))
    await room.clock.advance(0)
    const late = room.get('/a')
    body.end('y')
    // the first one has not read a byte so far
    const joined = await late
    expect([joined.source, (await textOf(joined)).length]).toEqual(['collapsed', 200_001])
    expect(await textOf(first)).toHaveLength(200_001)
    expect(room.calls).toHaveLength(1)
  })

  test('a first reader that leaves in the middle does not take the body from the others', async () => {
    const room = cached()
    const body = new PassThrough()
    room.origin(streamed(body))
    const caller = new AbortController()
    await room.get('/a', [], { signal: caller.signal })
    body.write('one ')
    await room.clock.advance(0)
    const late = room.get('/a')
    await room.clock.advance(0)
    caller.abort(new CallerGone())
    await room.clock.advance(0)
    expect([body.destroyed, room.calls[0]?.signal.aborted]).toEqual([false, false])
    body.end('two')
    expect(await textOf(await late)).toBe('one two')
  })

  test('alone, a reader that leaves in the middle ends the transfer, and nothing is stored', async () => {
    const room = cached()
    const body = new PassThrough()
    room.origin(streamed(body))
    const caller = new AbortController()
    const answer = await room.get('/a', [], { signal: caller.signal })
    body.write('one ')
    await room.clock.advance(0)
    caller.abort(new CallerGone())
    expect(room.calls[0]?.signal.aborted).toBe(true)
    expect(answer.body.kind === 'stream' && answer.body.stream.destroyed).toBe(true)
    body.destroy()
    await room.clock.advance(0)
    expect(room.cache.entries).toBe(0)
  })

  test.each([
    ['breaks off', (body: PassThrough) => body.destroy(new Error('reset'))],
    ['ends without saying so', (body: PassThrough) => body.destroy()],
    ['is shorter than announced', (body: PassThrough) => body.end()],
    ['is longer than announced', (body: PassThrough) => body.end('x'.repeat(20))]
  ])('a body that %s is not stored, and those who waited ask again', async (_what, finish) => {
    const room = cached()
    const body = new PassThrough()
    room.origin(streamed(body, FRESH, 10), { fields: FRESH, body: 'whole' })
    const first = await room.get('/a')
    const read = textOf(first).catch((error: unknown) => error)
    body.write('12345')
    await room.clock.advance(0)
    const late = room.get('/a')
    await room.clock.advance(0)
    finish(body)
    expect(await textOf(await late)).toBe('whole')
    await read
    expect(room.calls).toHaveLength(2)
    expect(await textOf(await room.get('/a'))).toBe('whole')
  })

  test('a body over the limit streams on to its reader at the reader’s pace; those who wait go on their own', async () => {
    const room = cached({ maxEntryBytes: 1000 })
    let produced = 0
    const endless = new Readable({
      highWaterMark: 1000,
      read() {
        produced += 1000
        this.push(produced > 1_000_000 ? null : Buffer.alloc(1000))
      }
    })
    room.origin(streamed(endless), { fields: FRESH, body: 'small' })
    const first = await room.get('/a')
    const late = room.get('/a')
    await room.clock.advance(0)
    expect(await textOf(await late)).toBe('small')
    await room.clock.advance(0)
    // nobody reads: the source is paused, not drained into memory
    expect(produced).toBeLessThan(200_000)
    expect(await textOf(first)).toHaveLength(1_000_000)
  })

  test('an announced length over the limit is not collected at all', async () => {
    const room = cached({ maxEntryBytes: 1000 })
    const body = new PassThrough()
    room.origin(streamed(body, FRESH, 1001))
    const answer = await room.get('/a')
    expect(answer.body.kind === 'stream' && answer.body.stream).toBe(body)
    expect(answer.cacheStatus).toBe('fwd=uri-miss; fwd-status=200')
  })

  test('all bodies being collected at once stay within maxBytes', async () => {
    const room = cached({ maxBytes: 100_000, maxEntryBytes: 50_000 })
    const bodies: PassThrough[] = []
    room.origin(() => {
      const body = new PassThrough()
      bodies.push(body)
      return streamed(body)
    })
    const answers = await Promise.all(Array.from({ length: 10 }, (_, index) => room.get(`/${index}`)))
    for (const body of bodies) body.write(Buffer.alloc(20_000))
    await room.clock.advance(0)
    for (const body of bodies) body.end()
    expect((await Promise.all(answers.map(textOf))).every((text) => text.length === 20_000)).toBe(true)
    await room.clock.advance(0)
    expect(room.cache.entries).toBeGreaterThan(0)
    expect(room.cache.bytes).toBeLessThanOrEqual(100_000)
    // five fitted into memory at once; the others were let through without being collected
    const evicted = room.events.reduce((sum, event) => sum + (event.kind === 'cache-size' ? event.evictions : 0), 0)
    expect(room.cache.entries + evicted).toBe(5)
  })

  test('a body that took longer to arrive than it lasts is for its reader alone', async () => {
    const room = cached()
    const body = new PassThrough()
    room.origin(streamed(body, ['Cache-Control', 'max-age=1']), { fields: FRESH, body: 'next' })
    const first = await room.get('/a')
    const late = room.get('/a')
    await room.clock.advance(2000)
    body.end('slow')
    expect(await textOf(first)).toBe('slow')
    expect(await textOf(await late)).toBe('next')
  })

  test('those who waited for another variant than theirs go on at once, not one after the other', async () => {
    const room = cached()
    const slow = slowOrigin()
    room.origin(slow.origin)
    const callers = ['1', '2', '3'].map((foo) => room.get('/a', ['Foo', foo]))
    await room.clock.advance(0)
    slow.answer({ fields: [...FRESH, 'Vary', 'Foo'], body: '1' })
    await room.clock.advance(0)
    expect(slow.requests).toHaveLength(3)
    for (const body of ['2', '3']) slow.answer({ fields: [...FRESH, 'Vary', 'Foo'], body })
    expect(await Promise.all((await Promise.all(callers)).map(textOf))).toEqual(['1', '2', '3'])
  })

  test('one who waited is not given what a write has outdated meanwhile, though it stood in for the one who asked', async () => {
    const room = cached()
    const slow = slowOrigin()
    room.origin({ fields: ['Cache-Control', 'max-age=1, stale-if-error=600'], body: 'old' })
    await room.get('/a')
    await room.clock.advance(2000)
    room.origin(slow.origin)
    const asking = room.get('/a')
    const waiting = room.get('/a')
    await room.clock.advance(0)
    room.origin({ status: 204 }, { fields: FRESH, body: 'new' })
    await room.send('PUT', '/a')
    slow.answer({ status: 500 })
    expect((await asking).source).toBe('stale')
    expect(await textOf(await waiting)).toBe('new')
  })

  test.each(['no-cache', 'max-age=0', 'min-fresh=1'])('a caller that asks for %s does not wait for what others asked before it', async (directive) => {
    const room = cached()
    const slow = slowOrigin()
    room.origin(slow.origin)
    const other = room.get('/a')
    const own = room.get('/a', ['Cache-Control', directive])
    await room.clock.advance(0)
    expect(slow.requests).toHaveLength(2)
    for (const body of ['1', '2']) slow.answer({ fields: FRESH, body })
    expect([await textOf(await other), await textOf(await own)]).toEqual(['1', '2'])
  })
})
