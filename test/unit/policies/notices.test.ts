import { expect, test } from 'vitest'
import { NO_BODY, type Response } from '../../../src/exchange/message.ts'
import { notices } from '../../../src/policies/notices.ts'
import { testClock } from '../../support/clock.ts'
import { requestTo, reports } from '../../support/policy-call.ts'

function answering(status: number, fields: string[]) {
  const { events, report } = reports()
  const policy = notices({ clock: testClock(), random: () => 0, report, upstream: 'acme' })
  const answer: Response = { status, fields, body: NO_BODY, source: 'upstream' }
  return { events, answer, result: policy(requestTo('GET', '/v1/a', { operation: 'GET /v1/*' }), async () => answer) }
}

test('a deprecated call is reported under its template and passes through untouched', async () => {
  const { events, answer, result } = answering(200, ['Deprecation', '@1688169599', 'Sunset', 'Tue, 01 Dec 2026 00:00:00 GMT'])
  expect(await result).toBe(answer)
  expect(events).toEqual([
    {
      kind: 'deprecated-call',
      upstream: 'acme',
      operation: 'GET /v1/*',
      stage: 'deprecated',
      deprecatedAt: 1688169599000,
      sunsetAt: Date.UTC(2026, 11, 1),
      link: undefined
    }
  ])
})

test('a brownout is reported and the 480 reaches the app', async () => {
  const { events, result } = answering(480, [])
  expect((await result).status).toBe(480)
  expect(events).toMatchObject([{ kind: 'deprecated-call', stage: 'brownout' }])
})

test('an error answer is read too', async () => {
  const { events } = answering(500, ['deprecation', 'true'])
  await Promise.resolve()
  expect(events).toMatchObject([{ kind: 'deprecated-call' }])
})

test('an answer without notices reports nothing', async () => {
  const { events, result } = answering(200, ['Content-Type', 'text/plain'])
  await result
  expect(events).toEqual([])
})
