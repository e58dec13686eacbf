import { setTimeout as realSleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import {
  arm,
  FORM,
  INFO,
  infoForm,
  infoHeaders,
  infoToken,
  integrationHeaders,
  integrationToken,
  JSON_BODY,
  MANNERS,
  openBench,
  PARTNER,
  SCOPE,
  TENANT,
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

/** One bad habit: what it does, and every clause it breaks. */
type Habit = { does: string; breaks: string[]; act: () => Promise<void> }

async function times(count: number, act: () => Promise<unknown>): Promise<void> {
  for (let done = 0; done < count; done++) await act()
}

const HABITS: Habit[] = [
  {
    does: 'asks INFO-Subscription for a token per call',
    breaks: ['IS-62'],
    act: () => times(2, async () => on.send('GET', `${INFO}/orders/none${Math.random()}`, infoHeaders(await infoToken(on))))
  },
  {
    does: 'renews at half the lifetime',
    breaks: ['IA-13'],
    async act() {
      await integrationToken(bench, on)
      bench.clock.pass(1_800_000)
      await integrationToken(bench, on)
    }
  },
  {
    does: 'asks for two tokens at once',
    breaks: ['IA-14'],
    async act() {
      bench.clock.together(2)
      await Promise.all([integrationToken(bench, bench.connect()), integrationToken(bench, bench.connect())])
    }
  },
  {
    does: 'renews again and again because of 401',
    breaks: ['IS-62'],
    async act() {
      for (let round = 0; round < 3; round++) {
        const token = await infoToken(on)
        await arm(on, { provider: 'info-subscription', kind: 'revoke-token' })
        await on.send('GET', `${INFO}/subscribers/${round + 1}`, infoHeaders(token))
        bench.clock.pass(5_000)
      }
    }
  },
  {
    does: 'gets more tokens than an hour has use for, however slowly',
    breaks: ['IS-62'],
    async act() {
      for (let round = 0; round < 5; round++) {
        expect(bench.broken()).toEqual([])
        const token = await infoToken(on)
        await arm(on, { provider: 'info-subscription', kind: 'revoke-token' })
        await on.send('GET', `${INFO}/subscribers/${round + 1}`, infoHeaders(token))
        bench.clock.pass(61_000)
      }
    }
  },
  {
    does: 'tries a refused secret again and again',
    breaks: ['IS-58'],
    act: () => times(4, () => on.send('POST', '/info-subscription/token', FORM, infoForm({ client_secret: 'guess' })))
  },
  {
    does: 'asks the failing token service again at once',
    breaks: ['IA-35'],
    async act() {
      await arm(on, { provider: 'integration', kind: 'status', match: 'token', status: 503 })
      await times(2, () => integrationToken(bench, on))
    }
  },
  {
    does: 'asks the failing token service again sooner than the ladder says',
    breaks: ['IA-35'],
    async act() {
      await arm(on, { provider: 'integration', kind: 'status', match: 'token', status: 503, times: 2 })
      for (const wait of [10_000, 29_000, 0]) {
        await integrationToken(bench, on)
        bench.clock.pass(wait)
      }
    }
  },
  {
    does: 'lets a token request wait for ever',
    breaks: ['IA-41'],
    async act() {
      await arm(on, { provider: 'integration', kind: 'hang', match: 'token' })
      const patient = bench.connect()
      const hung = integrationToken(bench, patient)
      while (bench.clock.pending() === 0) await realSleep(2)
      bench.clock.pass(119_000)
      expect(bench.broken()).toEqual([])
      bench.clock.pass(2000)
      patient.close()
      await expect(hung).rejects.toThrow(/hang up|ECONNRESET/)
    }
  },
  {
    does: 'sends the secret in the query',
    breaks: ['IS-10'],
    act: () => times(1, () => on.send('POST', '/info-subscription/token?client_secret=info-secret', FORM, infoForm()))
  },
  {
    does: 'proves itself twice over',
    breaks: ['IS-05'],
    act: () => times(1, () => on.send('POST', '/info-subscription/token', { ...FORM, Authorization: `Basic ${btoa('info-demo:info-secret')}` }, infoForm()))
  },
  {
    does: 'repeats a parameter',
    breaks: ['IS-05'],
    act: () => times(1, () => on.send('POST', '/info-subscription/token', FORM, `${infoForm()}&scope=${SCOPE}`))
  },
  {
    does: 'sends the tenant to the token service',
    breaks: ['IS-15'],
    act: () => times(1, () => on.send('POST', '/info-subscription/token', { ...FORM, 'S4-TenantId': TENANT }, infoForm()))
  },
  {
    does: 'uses a refresh grant that is not offered',
    breaks: ['IS-05'],
    act: () => times(1, () => on.send('POST', '/info-subscription/token', FORM, infoForm({ grant_type: 'refresh_token', refresh_token: 'x' })))
  },
  {
    does: 'forgets the tenant',
    breaks: ['IS-15'],
    act: () => times(1, async () => on.send('GET', `${INFO}/products`, { ...MANNERS, Authorization: `Bearer ${await infoToken(on)}` }))
  },
  {
    does: 'sends the tenant twice',
    breaks: ['IS-15'],
    act: () => times(1, async () => on.send('GET', `${INFO}/products`, { ...infoHeaders(await infoToken(on)), 'S4-TenantId': [TENANT, TENANT] }))
  },
  { does: 'calls without a token', breaks: ['IS-54'], act: () => times(1, () => on.send('GET', `${INFO}/products`, { ...MANNERS, 'S4-TenantId': TENANT })) },
  {
    does: 'uses an expired token',
    breaks: ['IA-11'],
    async act() {
      const token = await integrationToken(bench, on)
      bench.clock.pass(3_601_000)
      await on.send('GET', `${PARTNER}/campaigns`, integrationHeaders(token))
    }
  },
  {
    does: 'puts the token in the query',
    breaks: ['IA-02'],
    act: () => times(1, async () => on.send('GET', `${PARTNER}/changes?access_token=x`, integrationHeaders(await integrationToken(bench, on))))
  },
  {
    does: 'retries at once',
    breaks: ['IA-35'],
    async act() {
      const token = await integrationToken(bench, on)
      await arm(on, { provider: 'integration', kind: 'status', status: 500, times: 2 })
      await times(3, () => on.send('GET', `${PARTNER}/changes`, integrationHeaders(token)))
    }
  },
  {
    does: 'waits too short a time before the second retry',
    breaks: ['IA-35'],
    async act() {
      const token = await integrationToken(bench, on)
      await arm(on, { provider: 'integration', kind: 'status', status: 500, times: 2 })
      for (const wait of [10_000, 29_000, 0]) {
        await on.send('GET', `${PARTNER}/changes`, integrationHeaders(token))
        bench.clock.pass(wait)
      }
    }
  },
  {
    does: 'gives up after one attempt',
    breaks: ['IA-34'],
    async act() {
      const token = await integrationToken(bench, on)
      await arm(on, { provider: 'integration', kind: 'status', status: 500 })
      await on.send('GET', `${PARTNER}/changes`, integrationHeaders(token))
      bench.clock.pass(600_000)
    }
  },
  {
    does: 'calls inside Retry-After',
    breaks: ['IA-48'],
    async act() {
      const token = await integrationToken(bench, on)
      await arm(on, { provider: 'integration', kind: 'status', status: 429, retryAfter: 45 })
      await on.send('DELETE', `${PARTNER}/coupons/1`, integrationHeaders(token))
      bench.clock.pass(44_000)
      await on.send('DELETE', `${PARTNER}/coupons/2`, integrationHeaders(token))
      bench.clock.pass(1000)
      await on.send('DELETE', `${PARTNER}/coupons/1`, integrationHeaders(token))
      await on.send('DELETE', `${PARTNER}/coupons/2`, integrationHeaders(token))
    }
  },
  {
    does: 'calls inside a Retry-After that is a date',
    breaks: ['IS-60'],
    async act() {
      const token = await infoToken(on)
      await arm(on, { provider: 'info-subscription', kind: 'status', status: 503, retryAfter: 'date:240' })
      await on.send('DELETE', `${INFO}/subscribers/5`, infoHeaders(token))
      bench.clock.pass(200_000)
      await on.send('DELETE', `${INFO}/subscribers/6`, infoHeaders(token))
    }
  },
  {
    does: 'keeps calling after a 429 that says nothing',
    breaks: ['IS-60'],
    async act() {
      const token = await infoToken(on)
      await arm(on, { provider: 'info-subscription', kind: 'status', status: 429 })
      for (const id of [11, 12, 13]) {
        await on.send('DELETE', `${INFO}/subscribers/${id}`, infoHeaders(token))
        bench.clock.pass(10_000)
      }
    }
  },
  {
    does: 'keeps calling after a 503 that says nothing',
    breaks: ['IS-52'],
    async act() {
      const token = await infoToken(on)
      await arm(on, { provider: 'info-subscription', kind: 'status', status: 503 })
      for (const id of [11, 12, 13]) {
        await on.send('DELETE', `${INFO}/subscribers/${id}`, infoHeaders(token))
        bench.clock.pass(20_000)
      }
    }
  },
  {
    does: 'calls during the cooldown',
    breaks: ['IA-39'],
    async act() {
      const token = await integrationToken(bench, on)
      await arm(on, { provider: 'integration', kind: 'status', status: 500, times: 5 })
      for (let id = 1; id <= 6; id++) {
        await on.send('PUT', `${PARTNER}/customers/c${id}`, integrationHeaders(token))
        bench.clock.pass(1000)
      }
    }
  },
  {
    does: 'sends two probes after the cooldown',
    breaks: ['IA-39'],
    async act() {
      const token = await integrationToken(bench, on)
      await arm(on, { provider: 'integration', kind: 'status', status: 500, times: 5 })
      for (let id = 1; id <= 5; id++) await on.send('PUT', `${PARTNER}/customers/c${id}`, integrationHeaders(token))
      bench.clock.pass(60_000)
      bench.clock.together(2)
      await Promise.all([7, 8].map((id) => bench.connect().send('PUT', `${PARTNER}/customers/c${id}`, integrationHeaders(token))))
    }
  },
  {
    does: 'repeats a POST that was reset after it had been read',
    breaks: ['IA-38'],
    async act() {
      const token = await integrationToken(bench, on)
      await arm(on, { provider: 'integration', kind: 'reset-after-read' })
      await expect(on.send('POST', `${PARTNER}/receipts`, { ...integrationHeaders(token), ...JSON_BODY }, '{"a":1}')).rejects.toThrow(/hang up|ECONNRESET/)
      await on.send('POST', `${PARTNER}/receipts`, { ...integrationHeaders(token), ...JSON_BODY }, '{"a":1}')
    }
  },
  {
    does: 'repeats a call that was turned down as wrong',
    breaks: ['IS-32'],
    act: () => infoToken(on).then((token) => times(2, () => on.send('POST', `${INFO}/orders`, { ...infoHeaders(token), ...JSON_BODY }, '{}')))
  },
  {
    does: 'asks again for what does not exist',
    breaks: ['IA-52'],
    async act() {
      const token = await integrationToken(bench, on)
      await times(2, () => on.send('GET', `${PARTNER}/customers/nobody`, integrationHeaders(token)))
    }
  },
  {
    does: 'asks again for what is still fresh',
    breaks: ['IA-53'],
    async act() {
      const token = await integrationToken(bench, on)
      await times(2, () => on.send('GET', `${PARTNER}/campaigns`, integrationHeaders(token)))
    }
  },
  {
    does: 'fetches again without the validator',
    breaks: ['IA-53'],
    async act() {
      const token = await integrationToken(bench, on)
      await on.send('GET', `${PARTNER}/campaigns`, integrationHeaders(token))
      bench.clock.pass(301_000)
      await on.send('GET', `${PARTNER}/campaigns`, integrationHeaders(token))
    }
  },
  {
    does: 'asks the same thing many times at once',
    breaks: ['IA-53'],
    async act() {
      const token = await integrationToken(bench, on)
      bench.clock.together(2)
      await Promise.all([1, 2].map(() => bench.connect().send('GET', `${PARTNER}/campaigns`, integrationHeaders(token))))
    }
  },
  {
    does: 'fetches a temporary secret again and again',
    breaks: ['IA-15'],
    async act() {
      const token = await integrationToken(bench, on)
      for (const control of ['no-cache', 'no-cache'])
        await on.send('GET', `${PARTNER}/connection-string`, { ...integrationHeaders(token), 'Cache-Control': control })
    }
  },
  {
    does: 'polls in a loop',
    breaks: ['IS-37'],
    async act() {
      const token = await infoToken(on)
      const placed = await on.send('POST', `${INFO}/orders`, { ...infoHeaders(token), ...JSON_BODY }, '{"subscriber":1}')
      const location = new URL(String(placed.headers['location']), bench.sandbox.url).pathname
      for (let poll = 0; poll < 5; poll++) {
        bench.clock.pass(poll === 0 ? 2000 : 50)
        await on.send('GET', location, infoHeaders(token))
      }
    }
  },
  {
    does: 'calls what does not exist',
    breaks: ['IA-51'],
    act: () => times(1, async () => on.send('GET', `${PARTNER}/nope`, integrationHeaders(await integrationToken(bench, on))))
  },
  {
    does: 'exceeds the agreed volume',
    breaks: ['IA-48'],
    async act() {
      const token = await integrationToken(bench, on)
      const wires = Array.from({ length: 20 }, () => bench.connect())
      // in rounds: only the last one is over, so that nobody asks again for what was turned down
      for (let round = 0; round < 31; round++)
        await Promise.all(wires.map((each, index) => each.send('DELETE', `${PARTNER}/coupons/${index}`, integrationHeaders(token))))
    }
  },
  {
    does: 'reads the whole database one by one',
    breaks: ['IA-54'],
    async act() {
      const token = await integrationToken(bench, on)
      for (let id = 0; id <= 501; id++) {
        bench.clock.pass(200)
        await on.send('GET', `${PARTNER}/receipts/r${id}`, integrationHeaders(token))
      }
    }
  },
  {
    does: 'has no manners',
    breaks: ['IS-12', 'IS-23', 'RFC9110-7.6.3'],
    act: () => times(1, async () => on.send('GET', `${INFO}/products`, { Authorization: `Bearer ${await infoToken(on)}`, 'S4-TenantId': TENANT }))
  },
  {
    does: 'passes on what was meant for others',
    breaks: ['IA-26', 'RFC9110-7.6.1'],
    act: () =>
      times(1, async () =>
        on.send('GET', `${INFO}/products`, { ...infoHeaders(await infoToken(on)), Cookie: 'a=b', 'Proxy-Authorization': 'Basic eA==', TE: 'gzip' })
      )
  },
  {
    does: 'passes on what browsers and proxies say, and what is for the sidecar only',
    breaks: ['IA-26'],
    act: () =>
      times(1, async () =>
        on.send('GET', `${INFO}/products`, { ...infoHeaders(await infoToken(on)), 'Sec-Fetch-Mode': 'cors', 'X-Forwarded-Port': '1', 'Attache-Timeout': '1s' })
      )
  },
  {
    does: 'names a field in Connection',
    breaks: ['RFC9110-7.6.1'],
    act: () => times(1, async () => on.send('GET', `${INFO}/products`, { ...infoHeaders(await infoToken(on)), Connection: 'keep-alive, S4-TenantId' }))
  },
  {
    does: 'opens a connection for every call',
    breaks: ['RFC9112-9.3'],
    async act() {
      const token = await integrationToken(bench, on)
      for (let id = 0; id < 10; id++) await bench.connect().send('DELETE', `${PARTNER}/coupons/${id}`, integrationHeaders(token))
      expect(bench.broken()).toEqual([])
      await bench.connect().send('DELETE', `${PARTNER}/coupons/10`, integrationHeaders(token))
    }
  },
  {
    does: 'keeps a connection it does not use',
    breaks: ['IA-42'],
    async act() {
      const token = await integrationToken(bench, on)
      await on.send('DELETE', `${PARTNER}/coupons/1`, integrationHeaders(token))
      bench.clock.lieIdle()
    }
  },
  {
    does: 'follows a redirect with its credential',
    breaks: ['RFC9110-15.4'],
    async act() {
      const token = await integrationToken(bench, on)
      await arm(on, { provider: 'integration', kind: 'status', status: 307, fields: { Location: '/elsewhere' } })
      const { headers } = await on.send('GET', `${PARTNER}/changes`, integrationHeaders(token))
      await on.send('GET', String(headers['location']), integrationHeaders(token))
    }
  },
  {
    does: 'sends a private key',
    breaks: ['IA-04'],
    act: () =>
      times(1, async () =>
        on.send('POST', `${PARTNER}/receipts`, { ...integrationHeaders(await integrationToken(bench, on)), ...JSON_BODY }, '"-----BEGIN PRIVATE KEY-----"')
      )
  }
]

describe('the ledger catches a client that', () => {
  it.each(HABITS)('$does', async ({ act, breaks }) => {
    await act()
    expect(bench.broken()).toEqual(breaks)
  })
})
