import type { DemoApp, Heard } from './app.ts'

/** What a step may do: ask as the app, arrange trouble at the provider, let provider time pass, say what it found. */
export type Stage = {
  readonly app: DemoApp
  /** Arms a fault at the sandbox. */
  trouble(fault: Record<string, unknown>): Promise<void>
  /** Lets provider time pass. */
  pass(ms: number): Promise<void>
  /** Remembers what did not go as it should. */
  expect(isTrue: boolean, what: string): void
}

export type Step = { readonly says: string; act(stage: Stage): Promise<string> }

const INFO = 'info'
const PARTNER = 'partner'

/** Some 140 requests of an ordinary day, with an extraordinary amount of trouble in between. */
export const STORY: readonly Step[] = [
  {
    says: 'cold start: 60 reads at once',
    async act({ app, expect }) {
      const heard = await Promise.all([
        ...times(20, () => app.ask(INFO, '/products')),
        ...times(10, (n) => app.ask(INFO, `/subscribers/${n}`)),
        ...times(20, () => app.ask(PARTNER, '/campaigns')),
        ...times(10, (n) => app.ask(PARTNER, `/customers/c${n}`))
      ])
      expect(all(heard, 200), 'every read of the cold start is answered')
      return summary(heard)
    }
  },
  {
    says: 'the same again',
    async act({ app, expect }) {
      const heard = await Promise.all([...times(10, (n) => app.ask(INFO, `/subscribers/${n}`)), ...times(10, (n) => app.ask(PARTNER, `/customers/c${n}`))])
      expect(all(heard, 200) && heard.every(({ attempts }) => attempts === 0), 'known and fresh data come from the cache')
      return summary(heard)
    }
  },
  {
    says: 'a customer who does not exist, 8 times',
    async act({ app, expect }) {
      const heard = await inTurn(times(8, () => () => app.ask(PARTNER, '/customers/nobody')))
      expect(all(heard, 404) && sum(heard) === 1, 'what is known not to exist is asked once')
      return summary(heard)
    }
  },
  {
    says: 'a temporary connection string, wanted 12 times',
    async act({ app, expect }) {
      const heard = await inTurn(times(12, () => () => app.ask(PARTNER, '/connection-string')))
      expect(all(heard, 200) && sum(heard) === 1, 'a secret on loan is asked for once')
      return summary(heard)
    }
  },
  {
    says: 'four endpoints that do not exist',
    async act({ app, expect }) {
      const heard = await inTurn(times(4, (n) => () => app.ask(PARTNER, `/customer/c${n}`)))
      expect(heard.every(({ problem }) => problem === 'unknown-operation') && sum(heard) === 0, 'unknown endpoints never reach the provider')
      return summary(heard)
    }
  },
  {
    says: 'two orders: 202, then the app asks until they are done',
    async act({ app, pass, expect }) {
      const polls = await Promise.all(times(2, (n) => placeAndPoll({ app, pass }, n)))
      expect(
        polls.every(({ last }) => last?.status === 200),
        'an order is done in the end'
      )
      return `done after ${polls.map(({ count }) => count).join(' and ')} looks`
    }
  },
  {
    says: 'writing: PUT, POST, DELETE, and reading what was written',
    async act({ app, expect }) {
      const heard = await inTurn([
        () => app.ask(INFO, '/subscribers/1', { method: 'PUT', json: { name: 'Renamed' } }),
        () => app.ask(INFO, '/subscribers/1'),
        () => app.ask(INFO, '/subscribers', { method: 'POST', json: { name: 'New' } }),
        () => app.ask(PARTNER, '/coupons/5', { method: 'DELETE' }),
        () => app.ask(PARTNER, '/receipts', { method: 'POST', json: { amount: 12 } }),
        () => app.ask(PARTNER, '/receipts/search', { method: 'POST', json: { amount: 12 } })
      ])
      expect(heard[1]?.body.includes('Renamed') === true, 'a write makes the cached answer go')
      return summary(heard)
    }
  },
  {
    says: 'the partner answers 503 twice',
    async act({ app, trouble, expect }) {
      await trouble({ provider: 'integration', kind: 'status', status: 503, times: 2, match: 'GET /customers/*' })
      const heard = await app.ask(PARTNER, '/customers/c50')
      expect(heard.status === 200 && heard.attempts === 3, 'the third attempt succeeds')
      return summary([heard])
    }
  },
  {
    says: 'INFO-Subscription answers 429 with Retry-After: 20, five more calls come in',
    async act({ app, trouble, pass, expect }) {
      await trouble({ provider: 'info-subscription', kind: 'status', status: 429, retryAfter: 20, match: 'GET /subscribers/60' })
      const first = app.ask(INFO, '/subscribers/60')
      await pass(6000)
      const heard = await Promise.all([first, ...times(5, (n) => app.ask(INFO, `/subscribers/${60 + n}`))])
      expect(all(heard, 200), 'everybody waits as told and is served')
      return summary(heard)
    }
  },
  {
    says: 'INFO-Subscription resets the connection',
    async act({ app, trouble, expect }) {
      await trouble({ provider: 'info-subscription', kind: 'reset-before-header', match: 'GET /subscribers/70' })
      const heard = await app.ask(INFO, '/subscribers/70')
      expect(heard.status === 200 && heard.attempts === 2, 'a read that was cut off is asked again')
      return summary([heard])
    }
  },
  {
    says: 'the partner resets the connection after it has read a POST',
    async act({ app, trouble, expect }) {
      await trouble({ provider: 'integration', kind: 'reset-after-read', match: 'POST /receipts' })
      const heard = await app.ask(PARTNER, '/receipts', { method: 'POST', json: { amount: 99 } })
      expect(heard.problem === 'outcome-unknown' && heard.attempts === 1, 'a POST in doubt is never repeated, and the app is told')
      return summary([heard])
    }
  },
  {
    says: 'what was read first has gone stale: validators instead of bodies',
    async act({ app, pass, expect }) {
      await pass(61_000)
      const heard = await Promise.all(times(5, (n) => app.ask(INFO, `/subscribers/${n + 1}`)))
      expect(all(heard, 200), 'stale answers are validated')
      return summary(heard)
    }
  },
  {
    says: 'an outage at the partner: five failures in a row, silence, one probe',
    async act({ app, trouble, pass, expect }) {
      const before = await app.ask(PARTNER, '/customers/c60')
      await trouble({ provider: 'integration', kind: 'status', status: 500, times: 5, match: 'PUT /customers/*' })
      const failed = await inTurn([61, 62].map((n) => () => app.ask(PARTNER, `/customers/c${n}`, { method: 'PUT', json: {} })))
      const refused = await inTurn(times(5, (n) => () => app.ask(PARTNER, `/customers/c${70 + n}`)))
      expect(
        failed.every(({ status }) => status >= 500),
        'an outage reaches the app as one'
      )
      expect(refused.every(({ problem }) => problem === 'breaker-open') && sum(refused) === 0, 'during the cooldown nothing is sent')
      await pass((refused.at(-1)?.retryAfterS ?? 0) * 1000 + 500)
      const probe = await app.ask(PARTNER, '/customers/c80')
      expect(probe.status === 200, 'after the cooldown the provider is asked again')
      return summary([before, ...failed, ...refused, probe])
    }
  }
]

async function placeAndPoll({ app, pass }: Pick<Stage, 'app' | 'pass'>, subscriber: number): Promise<{ last: Heard | undefined; count: number }> {
  const placed = await app.ask(INFO, '/orders', { method: 'POST', json: { subscriber } })
  let last: Heard | undefined
  let count = 0
  for (let waitMs = 2000; count < 20 && last?.status !== 200 && placed.location !== undefined; waitMs *= 1.5) {
    await pass(waitMs)
    last = await app.ask(INFO, new URL(placed.location, 'http://app.invalid').pathname.replace(`/${INFO}/`, '/'))
    count++
  }
  return { last, count }
}

function times<T>(count: number, make: (n: number) => T): T[] {
  return Array.from({ length: count }, (_, index) => make(index + 1))
}

async function inTurn(asks: readonly (() => Promise<Heard>)[]): Promise<Heard[]> {
  const heard: Heard[] = []
  for (const ask of asks) heard.push(await ask())
  return heard
}

function all(heard: readonly Heard[], status: number): boolean {
  return heard.every((each) => each.status === status)
}

function sum(heard: readonly Heard[]): number {
  return heard.reduce((total, each) => total + each.attempts, 0)
}

/** `20 × 200, 1 × 503 · 3 calls to the provider · waited 41 s` */
function summary(heard: readonly Heard[]): string {
  const counts = Map.groupBy(heard, ({ status, problem }) => (problem === undefined ? String(status) : `${status} ${problem}`))
  const answers = [...counts].map(([answer, each]) => (heard.length === 1 ? answer : `${each.length} × ${answer}`)).join(', ')
  const waitedMs = Math.max(...heard.map((each) => each.waitedMs))
  const waited = waitedMs < 1000 ? '' : ` · waited ${Math.round(waitedMs / 1000)} s`
  return `${answers} · ${sum(heard)} call${sum(heard) === 1 ? '' : 's'} to the provider${waited}`
}
