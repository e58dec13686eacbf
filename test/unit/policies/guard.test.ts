import { expect, test, vi } from 'vitest'
import type { Response } from '../../../src/exchange/message.ts'
import { guard } from '../../../src/policies/guard.ts'
import { testClock } from '../../support/clock.ts'
import { answerOf, reports, requestTo } from '../../support/policy-call.ts'

function guarding(allow: string[] | undefined, unknown: 'block' | 'report' = 'block') {
  const { events, report } = reports()
  const policy = guard({ unknown, ...(allow === undefined ? {} : { allow }) }, { clock: testClock(), random: () => 0, report, upstream: 'acme' })
  const next = vi.fn<() => Promise<Response>>(async () => answerOf(200))
  return { events, next, call: (method: string, target: string) => policy(requestTo(method, target), next) }
}

test('an agreed operation passes, its query does not matter', async () => {
  const { call, next, events } = guarding(['GET /v1/{id}/orders'])
  expect((await call('GET', '/v1/7/orders?page=/../2')).status).toBe(200)
  expect(next).toHaveBeenCalledOnce()
  expect(events).toEqual([])
})

test('an operation that was not agreed is answered locally with 404 and the nearest ones', async () => {
  const { call, next, events } = guarding(['GET /v1/customers/{id}', 'GET /v1/orders'])
  await expect(call('GET', '/v1/custmers/7')).rejects.toMatchObject({
    code: 'unknown-operation',
    status: 404,
    details: { extra: { suggestions: ['GET /v1/customers/{id}', 'GET /v1/orders'] } }
  })
  expect(next).not.toHaveBeenCalled()
  expect(events).toEqual([
    { kind: 'unknown-operation', upstream: 'acme', method: 'GET' },
    { kind: 'call-avoided', upstream: 'acme', reason: 'guard' }
  ])
})

test('a known path with another method is 405 and says which are allowed', async () => {
  const { call } = guarding(['PUT /v1/orders/*', 'GET /v1/orders/*'])
  await expect(call('DELETE', '/v1/orders/1')).rejects.toMatchObject({ status: 405, details: { fields: ['Allow', 'GET, HEAD, PUT'] } })
})

test('percent-encoding a letter does not evade the list, nor fall foul of it', async () => {
  const { call, next } = guarding(['GET /v1/sms'])
  await call('GET', '/v1/%73ms')
  expect(next).toHaveBeenCalledOnce()
  await expect(call('GET', '/v1/%2e%2e/admin')).rejects.toMatchObject({ code: 'unknown-operation' })
})

test('unknown: report lets it pass and says so', async () => {
  const { call, events } = guarding(['GET /v1/orders'], 'report')
  expect((await call('POST', '/v2')).status).toBe(200)
  expect(events).toEqual([{ kind: 'unknown-operation', upstream: 'acme', method: 'POST' }])
})

test.each([[undefined], [[]]])('nothing listed (%j), everything allowed', async (allow) => {
  expect((await guarding(allow).call('PURGE', '/anything')).status).toBe(200)
})
