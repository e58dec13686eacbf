import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { systemClock } from '../../src/exchange/clock.ts'
import { TakenOver, journal, type Entry, type Outcome } from '../../src/operations/journal.ts'
import { openStore } from '../../src/state/open-store.ts'
import { requireReal } from '../support/real.ts'
import { realRedis, type RealRedis } from '../support/redis.ts'

const binary = requireReal('redis-server')
const SEAL_KEY = Buffer.alloc(32, 5)

describe.skipIf(binary === undefined)('the journal of background operations in a real Redis', () => {
  let redis: RealRedis
  beforeAll(async () => {
    redis = await realRedis(binary ?? '')
    await redis.start()
  })
  afterAll(() => redis.remove())

  test('a replica that was suspended while another took over can write nothing any more', async () => {
    const clock = systemClock()
    const [one, two] = await Promise.all(['a', 'b'].map(() => openStore(redis.url, { clock, random: () => 0, report: () => undefined })))
    if (one === undefined || two === undefined) throw new Error('no store')
    const first = journal(one, SEAL_KEY, clock.now)
    const second = journal(two, SEAL_KEY, clock.now)
    const entry: Entry = {
      id: 'A'.repeat(22),
      upstream: 'acme',
      requestId: 'r1',
      method: 'POST',
      target: '/CANARY',
      operation: 'other',
      fields: ['X-A', 'CANARY'],
      fingerprint: 'f',
      isRepeatable: false,
      deadlineAt: clock.now() + 60_000
    }
    const waiting = { owner: 'first', isSending: false, attempts: 0, lastTryAt: 0 }
    const outcome: Outcome = { upstream: 'acme', fingerprint: 'f', status: 200, fields: [], isProblem: false, isCut: false, keptUntil: clock.now() + 60_000 }

    await first.accept(entry, Buffer.from('CANARY'), waiting)
    await first.mark(entry, { ...waiting, attempts: 1 }, 0)
    expect(await second.request(entry.id)).toEqual({ entry, body: Buffer.from('CANARY') })
    const fence = await second.take(entry, await second.state(entry.id), 'second')
    expect(fence).toBeGreaterThan(0)
    expect(await second.take(entry, waiting, 'third')).toBeUndefined()

    await expect(first.mark(entry, { ...waiting, isSending: true }, 0)).rejects.toThrow(TakenOver)
    await second.mark(entry, { ...waiting, owner: 'second', isSending: true }, fence ?? 0)
    await second.end(entry.id, outcome, Buffer.from('CANARY'), fence ?? 0)
    await expect(first.mark(entry, { ...waiting, isSending: true }, 0)).rejects.toThrow(TakenOver)
    await expect(first.end(entry.id, { ...outcome, status: 500 }, Buffer.alloc(0), 0)).rejects.toThrow(TakenOver)
    expect((await first.outcome(entry.id))?.outcome.status).toBe(200)
    await Promise.all([one.close(), two.close()])
  })
})
