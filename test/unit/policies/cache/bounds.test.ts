import { describe, expect, test } from 'vitest'
import { cached } from '../../../support/cached.ts'
import { memoryBytes } from '../../../support/memory.ts'

const FRESH = { fields: ['Cache-Control', 'max-age=3600', 'Content-Type', 'application/json', 'ETag', '"1"'], body: 'x'.repeat(300) }

describe('bounds', () => {
  test('maxBytes holds at every moment under very many random targets, and the process really uses no more', { timeout: 30_000 }, async () => {
    const maxBytes = 8 * 1024 * 1024
    const { get, origin, cache, calls, events } = cached({ maxBytes })
    origin(() => ({ ...FRESH, body: FRESH.body + Math.random() }))
    let most = 0

    async function flood(targets: number): Promise<number> {
      for (let round = 0; round < targets; round++) {
        await get(`/items/${Math.random()}?q=${round}`)
        most = Math.max(most, cache.bytes)
        // the test's own memory of what happened is not the cache's
        for (const list of [calls, events]) Object.assign(list, { length: 0 })
      }
      return memoryBytes()
    }

    const empty = await memoryBytes()
    const full = await flood(8000)
    const flooded = await flood(16_000)
    expect(most).toBeLessThanOrEqual(maxBytes)
    expect(cache.bytes).toBeGreaterThan(maxBytes * 0.95)
    expect(full - empty).toBeLessThan(maxBytes * 2)
    expect(flooded - full).toBeLessThan(maxBytes * 0.1)
  })

  test('what makes room is the answer not used for the longest time, and it is counted', async () => {
    const { get, origin, cache, events } = cached({ maxBytes: 12_000 })
    origin(FRESH)
    await get('/1')
    await get('/2')
    const perAnswer = cache.bytes / 2
    const room = Math.floor(12_000 / perAnswer)
    for (let target = 3; target <= room; target++) await get(`/${target}`)
    await get('/1')
    await get('/new')
    expect((await get('/1')).source).toBe('cache')
    expect((await get('/2')).source).toBe('upstream')
    const sizes = events.filter((event) => event.kind === 'cache-size')
    expect(sizes.reduce((sum, event) => sum + event.evictions, 0)).toBe(2)
    expect(sizes.at(-1)).toMatchObject({ bytes: cache.bytes, entries: cache.entries })
  })

  test('an answer larger than the whole cache is not stored and evicts nothing', async () => {
    const { get, origin, cache } = cached({ maxBytes: 20_000, maxEntryBytes: 50_000 })
    origin(FRESH)
    await get('/1')
    origin({ ...FRESH, body: 'x'.repeat(30_000) })
    await get('/2')
    expect(cache.entries).toBe(1)
    expect((await get('/1')).source).toBe('cache')
  })

  test('entries and bytes are right after replacing, updating, dropping and purging', async () => {
    const { get, send, origin, cache, clock } = cached()
    origin({ ...FRESH, fields: [...FRESH.fields, 'Vary', 'Foo'] })
    await get('/a', ['Foo', '1'])
    const one = cache.bytes
    await get('/a', ['Foo', '2'])
    expect(cache.entries).toBe(2)
    expect(cache.bytes).toBe(2 * one)
    await get('/a', ['Foo', '2', 'Cache-Control', 'no-cache'])
    await clock.advance(3_600_000)
    origin({ status: 304, fields: ['ETag', '"1"'] })
    await get('/a', ['Foo', '2'])
    expect(cache.entries).toBe(2)
    await send('DELETE', '/a')
    expect([cache.entries, cache.bytes]).toEqual([0, 0])
  })

  test('the body is a copy: a small slice does not hold the buffer it came in', async () => {
    const { get, origin } = cached()
    const chunk = Buffer.alloc(65_536, 'x')
    origin({ response: { status: 200, fields: FRESH.fields, body: { kind: 'bytes', bytes: chunk.subarray(0, 10) }, source: 'upstream' } })
    await get('/a')
    const { body } = await get('/a')
    expect(body.kind === 'bytes' && body.bytes.buffer.byteLength).toBe(10)
  })
})
