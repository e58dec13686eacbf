import { setTimeout as realSleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  arm,
  INFO,
  infoHeaders,
  infoToken,
  integrationHeaders,
  integrationToken,
  JSON_BODY,
  openBench,
  PARTNER,
  type Bench,
  type Wire
} from './sandbox-support.ts'

let bench: Bench
let on: Wire
beforeEach(async () => {
  bench = await openBench()
  on = bench.connect()
})
afterEach(() => bench.close())

describe('the ledger stays empty for a client that', () => {
  it('keeps the agreements through a day of work', async () => {
    const info = await infoToken(on)
    const partner = await integrationToken(bench, on)
    const first = await on.send('GET', `${INFO}/products`, infoHeaders(info))
    bench.clock.pass(301_000)
    const second = await on.send('GET', `${INFO}/products`, { ...infoHeaders(info), 'If-None-Match': String(first.headers['etag']) })
    expect(second.status).toBe(304)
    const placed = await on.send('POST', `${INFO}/orders`, { ...infoHeaders(info), ...JSON_BODY }, '{"subscriber":1}')
    const location = new URL(String(placed.headers['location']), bench.sandbox.url).pathname
    const polls: number[] = []
    for (const wait of [250, 400, 640, 1024, 1638, 2621, 4194]) {
      bench.clock.pass(wait)
      polls.push((await on.send('GET', location, infoHeaders(info))).status)
    }
    expect(polls).toEqual([404, 404, 202, 202, 202, 202, 200])
    await arm(on, { provider: 'integration', kind: 'status', status: 503, times: 2 })
    for (const wait of [10_000, 30_000, 0]) {
      await on.send('DELETE', `${PARTNER}/coupons/9`, integrationHeaders(partner))
      bench.clock.pass(wait)
    }
    bench.clock.pass(2_520_000)
    await integrationToken(bench, on)
    expect(bench.details()).toEqual([])
  })

  it('renews once because its token was revoked', async () => {
    const token = await infoToken(on)
    await arm(on, { provider: 'info-subscription', kind: 'revoke-token' })
    expect((await on.send('GET', `${INFO}/products`, infoHeaders(token))).status).toBe(401)
    expect((await on.send('GET', `${INFO}/products`, infoHeaders(await infoToken(on)))).status).toBe(200)
    expect(bench.details()).toEqual([])
  })

  it('waits out a token service that is down for half an hour, on the ladder', async () => {
    await infoToken(on)
    bench.clock.pass(3_600_000)
    await arm(on, { provider: 'info-subscription', kind: 'status', match: 'token', status: 503, times: 30 })
    for (let failures = 1; failures <= 30; failures++) {
      await infoToken(on)
      bench.clock.pass(failures === 1 ? 10_000 : failures === 2 ? 30_000 : 60_000)
    }
    expect(await infoToken(on)).not.toBe('')
    expect(bench.details()).toEqual([])
  })

  it('has no connection left, whoever ended it', async () => {
    const token = await integrationToken(bench, on)
    for (const kind of ['reset-before-header', 'truncate']) {
      await arm(on, { provider: 'integration', kind })
      await expect(bench.connect().send('GET', `${PARTNER}/customers/c1?${kind}`, integrationHeaders(token))).rejects.toThrow(/hang up|aborted|ECONNRESET/)
    }
    await bench.hangUp()
    bench.clock.lieIdle()
    expect(bench.details()).toEqual([])
  })

  it('hangs up on a token answer that drips, and asks again on the ladder', async () => {
    await arm(on, { provider: 'integration', kind: 'slow-body', match: 'token', delay: 1 })
    const impatient = bench.connect()
    const dripping = integrationToken(bench, impatient)
    while (bench.clock.pending() === 0) await realSleep(2)
    impatient.close()
    await expect(dripping).rejects.toThrow(/hang up|aborted|ECONNRESET/)
    bench.clock.pass(10_000)
    const token = await integrationToken(bench, on)
    expect((await on.send('GET', `${PARTNER}/campaigns`, integrationHeaders(token))).status).toBe(200)
    expect(bench.details()).toEqual([])
  })

  it('falls silent after five failures and asks one thing after the cooldown', async () => {
    const token = await integrationToken(bench, on)
    await arm(on, { provider: 'integration', kind: 'status', status: 500, times: 5 })
    for (let id = 1; id <= 5; id++) await on.send('PUT', `${PARTNER}/customers/c${id}`, integrationHeaders(token))
    bench.clock.pass(60_000)
    expect((await on.send('PUT', `${PARTNER}/customers/c1`, integrationHeaders(token))).status).toBe(204)
    expect((await on.send('PUT', `${PARTNER}/customers/c2`, integrationHeaders(token))).status).toBe(204)
    bench.clock.pass(600_000)
    expect(bench.broken()).toEqual([])
  })
})
