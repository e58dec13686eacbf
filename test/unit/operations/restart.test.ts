import fc from 'fast-check'
import { beforeEach, describe, expect, test } from 'vitest'
import type { Request, Response } from '../../../src/exchange/message.ts'
import { Problem } from '../../../src/exchange/problem.ts'
import { field } from '../../../src/http/fields.ts'
import { memoryStore } from '../../../src/state/memory.ts'
import type { Store } from '../../../src/state/store.ts'
import { LATER, background, wishing } from '../../support/background.ts'
import { testClock, type TestClock } from '../../support/clock.ts'
import { answerOf } from '../../support/policy-call.ts'

const HOUR = 3_600_000
const STEP = 60_000

let clock: TestClock
let disk: Store
beforeEach(() => {
  clock = testClock()
  disk = memoryStore({ clock })
})

const locationOf = (answer: Response) => field(answer.fields, 'location') ?? ''
const never = <T>(): Promise<T> => new Promise(() => undefined)

/** A process over the disk that can be killed: from then on nothing it does has any effect, and nothing comes back to it. */
function processOver(provider: (request: Request) => Promise<Response>, kind: Store['kind'] = 'sqlite', name = 'acme') {
  let isDead = false
  const cut =
    <Args extends unknown[], T>(call: (...args: Args) => Promise<T>) =>
    async (...args: Args): Promise<T> => {
      if (isDead) return never()
      const result = await call(...args)
      return isDead ? never() : result
    }
  const store: Store = {
    kind,
    get: cut(disk.get),
    peek: cut(disk.peek),
    put: cut(disk.put),
    delete: cut(disk.delete),
    keys: cut(disk.keys),
    add: cut(disk.add),
    lock: cut(disk.lock),
    close: cut(disk.close)
  }
  const room = background(cut(provider), { clock, store, name })
  return {
    ...room,
    kill: () => void (isDead = true),
    // a process that was only suspended goes on where it stood
    wake: () => void (isDead = false)
  }
}

describe('after kill -9', () => {
  test('an accepted request is carried out', async () => {
    const arrived: string[] = []
    const provider = async (request: Request) => (arrived.push(request.target), answerOf(200, 'done'))
    const first = processOver(async () => never())
    const location = locationOf(await first.send(wishing('PUT', '/a', LATER, { text: 'body' })))
    first.kill()
    const second = processOver(provider)
    await second.operations.resume()
    await clock.advance(STEP)
    expect(arrived).toEqual(['/a'])
    expect(await second.look(location)).toMatchObject({ status: 200, document: { status: 200, body: 'done' } })
  })

  test('a non-repeatable request that was being sent is not sent again: its outcome is unknown', async () => {
    const arrived: string[] = []
    const first = processOver(async () => never())
    const location = locationOf(await first.send(wishing('POST', '/a', LATER)))
    await clock.advance(1000)
    first.kill()
    const second = processOver(async (request) => (arrived.push(request.target), answerOf(200)))
    await second.operations.resume()
    await clock.advance(HOUR)
    expect(arrived).toEqual([])
    expect((await second.look(location))?.document).toMatchObject({ status: 502, problem: { type: 'urn:attache:problem:outcome-unknown' } })
  })

  test('a non-repeatable request that provably was not sent is', async () => {
    const first = processOver(async (request) => {
      request.trace.sent = false
      throw new Problem('upstream-unreachable')
    })
    const location = locationOf(await first.send(wishing('POST', '/a', LATER)))
    await clock.advance(1000)
    first.kill()
    const second = processOver(async () => answerOf(201))
    await second.operations.resume()
    expect((await second.look(location))?.document).toMatchObject({ state: 'waiting', attempt: 1 })
    await clock.advance(STEP)
    expect((await second.look(location))?.document).toMatchObject({ status: 201 })
  })

  test('an outcome is still there, and still counts towards the bounds', async () => {
    const first = processOver(async () => answerOf(200, 'done'))
    const location = locationOf(await first.send(wishing('GET', '/a', LATER)))
    await clock.advance(0)
    first.kill()
    const second = background(async () => answerOf(200), { clock, store: disk, async: { operations: 1 } })
    await second.operations.resume()
    expect((await second.look(location))?.document).toMatchObject({ body: 'done' })
    await expect(second.send(wishing('GET', '/b', LATER))).rejects.toMatchObject({ status: 503 })
  })

  test('an operation of an upstream that is gone ends with a problem', async () => {
    const first = processOver(async () => never(), 'sqlite', 'removed')
    const location = locationOf(await first.send(wishing('PUT', '/a', LATER, { upstream: 'removed' })))
    first.kill()
    const second = processOver(async () => answerOf(200))
    await second.operations.resume()
    await clock.advance(STEP)
    expect((await second.look(location))?.document).toMatchObject({ problem: { type: 'urn:attache:problem:unknown-upstream' } })
  })
})

test('an orderly stop leaves what waits to the next start, and lets what must not be repeated end', async () => {
  const waiting = processOver(async () => {
    throw new Problem('breaker-open', { retryAfterMs: 60_000 })
  })
  const kept = locationOf(await waiting.send(wishing('PUT', '/a', LATER)))
  await clock.advance(1000)
  await waiting.operations.close()
  await expect(waiting.send(wishing('PUT', '/a', LATER))).rejects.toMatchObject({ code: 'draining' })

  const { promise, resolve } = Promise.withResolvers<Response>()
  const sending = processOver(() => promise)
  const once = locationOf(await sending.send(wishing('POST', '/b', LATER)))
  await clock.advance(1000)
  const closed = sending.operations.close()
  await clock.advance(1000)
  resolve(answerOf(201))
  await closed

  const next = processOver(async () => answerOf(200))
  await next.operations.resume()
  await clock.advance(STEP)
  expect((await next.look(kept))?.document).toMatchObject({ status: 200 })
  expect((await next.look(once))?.document).toMatchObject({ status: 201 })
})

test('a reload moves what waits to the new chain, and never shortens a wait', async () => {
  const arrivedAt: number[] = []
  const startedAt = clock.now()
  const { send, operations } = processOver(async (request) => {
    arrivedAt.push(clock.now() - startedAt)
    // waiting inside the chain, as on the ladder
    request.trace.nextTryAt = clock.now() + 30_000
    await clock.sleep(30_000, request.signal)
    return answerOf(200)
  })
  await send(wishing('PUT', '/a', LATER))
  await clock.advance(10_000)
  operations.refresh()
  await clock.advance(HOUR)
  expect(arrivedAt).toEqual([0, 10_000 + STEP])
})

test('a process beside us that shares the file keeps its own operations', async () => {
  const first = processOver(async () => never())
  const location = locationOf(await first.send(wishing('POST', '/a', LATER)))
  await clock.advance(1000)
  // what the first wrote, as if by a process that runs: the one that started the tests
  for (const key of await disk.keys('operations-replica/')) {
    await disk.delete(key)
    await disk.put(key.replace(/\/\d+/, `/${process.ppid}`), Buffer.from('1'), { ttlMs: 15_000 })
  }
  const state = `operations/${location.split('/')[3]}/state`
  const written = (await disk.get(state))?.toString('latin1') ?? ''
  await disk.put(state, Buffer.from(renamed(written), 'latin1'))
  first.kill()
  const second = processOver(async () => answerOf(200))
  await second.operations.resume()
  expect((await second.look(location))?.document).toMatchObject({ state: 'running' })
  await clock.advance(20_000)
  expect((await second.look(location))?.document).toMatchObject({ problem: { type: 'urn:attache:problem:outcome-unknown' } })
  await second.operations.close()
})

// a record is a length, a JSON head and nothing more here
function renamed(record: string): string {
  const head = record.slice(4).replace(/"owner":"\d+/, `"owner":"${process.ppid}`)
  const length = Buffer.alloc(4)
  length.writeUInt32BE(head.length)
  return length.toString('latin1') + head
}

describe('replicas that share the state', () => {
  test('take over what a dead one left, once it has been silent for a while', async () => {
    const first = processOver(async () => never(), 'redis')
    await first.operations.resume()
    const location = locationOf(await first.send(wishing('PUT', '/a', LATER)))
    const second = processOver(async () => answerOf(200, 'second'), 'redis')
    await second.operations.resume()
    await clock.advance(60_000)
    expect((await second.look(location))?.document).toMatchObject({ state: 'running', attempt: 1 })
    first.kill()
    await clock.advance(25_000 + STEP)
    expect((await second.look(location))?.document).toMatchObject({ status: 200, body: 'second' })
    await second.operations.close()
  })

  test('never both send what must not be repeated, even where the first was only suspended', async () => {
    const arrived: string[] = []
    let isPaused = false
    const first = processOver(async (request) => {
      arrived.push('first')
      // suspended before anything was sent: it will try again when it wakes up
      if (!isPaused) {
        request.trace.sent = false
        throw new Problem('upstream-wait', { retryAfterMs: 200_000 })
      }
      return answerOf(200)
    }, 'redis')
    await first.operations.resume()
    const location = locationOf(await first.send(wishing('POST', '/a', LATER)))
    await clock.advance(1000)
    first.kill()
    const second = processOver(async () => (arrived.push('second'), answerOf(201, 'second')), 'redis')
    await second.operations.resume()
    await clock.advance(100_000)
    isPaused = true
    first.wake()
    await clock.advance(HOUR)
    expect(arrived).toEqual(['first', 'second'])
    expect((await first.look(location))?.document).toMatchObject({ status: 201, body: 'second' })
    await Promise.all([first.operations.close(), second.operations.close()])
  })

  test('cancel each other’s operations', async () => {
    const first = processOver(
      (request) => new Promise((_resolve, reject) => request.signal.addEventListener('abort', () => reject(request.signal.reason))),
      'redis'
    )
    await first.operations.resume()
    const location = locationOf(await first.send(wishing('PUT', '/a', LATER)))
    const second = processOver(async () => answerOf(200), 'redis')
    await second.operations.resume()
    const answer = await second.operations.handle('DELETE', location.split('/')[3] ?? '')
    expect(answer?.status).toBe(202)
    await clock.advance(10_000)
    expect(await first.look(location)).toBeUndefined()
    expect(await disk.keys('operations/')).toEqual([])
    await Promise.all([first.operations.close(), second.operations.close()])
  })
})

test('under any schedule of failures and kills every accepted operation ends, and a POST arrives at most once', async () => {
  type Weather = 'fine' | 'unsent' | 'overloaded' | 'silent' | 'slow'
  const weather = fc.constantFrom<Weather>('fine', 'unsent', 'overloaded', 'silent', 'slow')
  const step = fc.oneof(
    fc.record({ kind: fc.constant('accept' as const), method: fc.constantFrom('POST', 'PUT') }),
    fc.record({ kind: fc.constant('wait' as const), ms: fc.integer({ min: 0, max: 200_000 }) }),
    fc.record({ kind: fc.constant('weather' as const), to: weather }),
    fc.record({ kind: fc.constant('kill' as const) })
  )
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      clock = testClock()
      disk = memoryStore({ clock })
      let now: Weather = 'fine'
      let kills = 0
      const arrivals = new Map<string, number[]>()
      const accepted: { location: string; method: string; target: string }[] = []
      async function provider(request: Request): Promise<Response> {
        if (now === 'unsent') {
          request.trace.sent = false
          throw new Problem('upstream-unreachable')
        }
        arrivals.set(request.target, [...(arrivals.get(request.target) ?? []), clock.now()])
        if (now === 'silent') return never()
        if (now === 'slow') await clock.sleep(5000, request.signal)
        return answerOf(now === 'overloaded' ? 503 : 200)
      }
      let current = processOver(provider)
      for (const each of steps) {
        if (each.kind === 'weather') now = each.to
        if (each.kind === 'wait') await clock.advance(each.ms)
        if (each.kind === 'accept') {
          const target = `/${accepted.length}`
          accepted.push({ location: locationOf(await current.send(wishing(each.method, target, LATER))), method: each.method, target })
        }
        if (each.kind === 'kill') {
          kills += 1
          current.kill()
          current = processOver(provider)
          await current.operations.resume()
        }
      }
      // whatever still hangs is cut off, and the sky clears
      current.kill()
      now = 'fine'
      current = processOver(provider)
      await current.operations.resume()
      await clock.advance(10 * STEP)
      for (const { location, method, target } of accepted) {
        const times = arrivals.get(target) ?? []
        expect((await current.look(location))?.status).toBe(200)
        expect(times.length).toBeLessThanOrEqual(method === 'POST' ? 1 : 3 + kills)
        const gaps = times.slice(1).map((at, i) => at - (times[i] ?? 0))
        expect(Math.min(STEP, ...gaps)).toBe(STEP)
      }
    }),
    { numRuns: 60 }
  )
})
