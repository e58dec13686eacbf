import { Readable } from 'node:stream'
import { describe, expect, test } from 'vitest'
import type { Request, Response } from '../../../src/exchange/message.ts'
import { authorize } from '../../../src/policies/authorize.ts'
import type { Event } from '../../../src/exchange/events.ts'
import { answerOf, bytesBody, reports, requestTo } from '../../support/policy-call.ts'
import { issued, json, opened, type OpenedCredential } from '../../support/token-service.ts'

type Call = {
  readonly one: OpenedCredential
  readonly sent: Request[]
  readonly events: Event[]
  send(request?: Partial<Request>, target?: string): Promise<Response>
}

async function calling(tree: Readonly<Record<string, unknown>>, answer: (request: Request, count: number) => Response): Promise<Call> {
  const one = await opened(tree)
  const { events, report } = reports()
  const policy = authorize(
    { baseUrl: 'https://api.example/v1/' },
    { clock: one.clock, random: () => 0, report, upstream: 'acme', credentials: one.credentials }
  )
  const sent: Request[] = []
  return {
    one,
    sent,
    events,
    send: (more = {}, target = '/orders') =>
      policy(requestTo('GET', target, { credential: 'a', ...more }), async (request) => {
        sent.push(request)
        return answer(request, sent.length)
      })
  }
}

const ok = (): Response => answerOf(200, 'ok', ['Content-Type', 'text/plain'])

describe('the credential', () => {
  test('is put on the request in place of any field of that name', async () => {
    const call = await calling({}, ok)
    await call.send({ fields: ['Accept', '*/*', 'AUTHORIZATION', 'Bearer of-the-app', 'authorization', 'x'] })
    expect(call.sent[0]?.fields).toEqual(['Accept', '*/*', 'Authorization', 'Bearer token-1'])
    expect(call.events).toEqual([{ kind: 'token-use', credential: 'a' }])
  })

  test('leaves the request as it is without one', async () => {
    const call = await calling({}, ok)
    await call.send({ credential: undefined, fields: ['Authorization', 'Bearer of-the-app'] })
    expect(call.sent[0]?.fields).toEqual(['Authorization', 'Bearer of-the-app'])
    expect(call.one.service.asked).toHaveLength(0)
  })

  test('may stand in the query, behind what is there', async () => {
    const call = await calling({ grant: 'static', query: 'api_key', value: 'k3y-value' }, ok)
    await call.send({}, '/orders')
    await call.send({}, '/orders?a=1')
    expect(call.sent.map((request) => request.target)).toEqual(['/orders?api_key=k3y-value', '/orders?a=1&api_key=k3y-value'])
  })

  test.each([
    ['/orders?api_key=of-the-app', '/orders?api_key=k3y-value'],
    ['/orders?a=1&API_Key=x&b=%20&api%5Fkey=y&c', '/orders?a=1&b=%20&c&api_key=k3y-value'],
    ['/orders?api_keys=1&x=api_key', '/orders?api_keys=1&x=api_key&api_key=k3y-value']
  ])('in the query takes the place of any of the caller’s: %s', async (asked, sent) => {
    const call = await calling({ grant: 'static', query: 'api_key', value: 'k3y-value' }, ok)
    await call.send({}, asked)
    expect(call.sent[0]?.target).toBe(sent)
  })

  test.each([
    ['/orders?access_token=of-the-app', '/orders'],
    ['/orders?a=%2b&access%5Ftoken=x&b', '/orders?a=%2b&b'],
    ['/orders?&a==&', '/orders?&a==&'],
    ['/orders?', '/orders?']
  ])('that is a token is the only one: none stays in the query (RFC 6750 §2): %s', async (asked, sent) => {
    const call = await calling({}, ok)
    await call.send({}, asked)
    expect(call.sent[0]?.target).toBe(sent)
  })

  test('that is no token leaves a token in the query alone', async () => {
    const call = await calling({ grant: 'static', header: 'X-Api-Key', value: 'k3y-value' }, ok)
    await call.send({}, '/orders?access_token=x')
    expect(call.sent[0]?.target).toBe('/orders?access_token=x')
  })

  test('that cannot be had means that nothing is sent', async () => {
    const call = await calling({}, ok)
    call.one.service.answer = () => json(500, {})
    await expect(call.send()).rejects.toMatchObject({ code: 'token-unavailable' })
    await expect(call.send({ credential: 'misspelt' })).rejects.toMatchObject({ code: 'token-unavailable' })
    expect(call.sent).toEqual([])
  })

  test('that takes a while counts as time spent on the token', async () => {
    const call = await calling({}, ok)
    call.one.service.answer = async () => {
      await call.one.clock.sleep(250)
      return issued('slow')
    }
    const request = requestTo('GET', '/')
    const answer = call.send({ trace: request.trace })
    await call.one.clock.advance(250)
    await answer
    expect(request.trace.tokenMs).toBe(250)
  })
})

describe('an answer', () => {
  test('loses the fields that bear the live token, and only those', async () => {
    const call = await calling({}, () => answerOf(200, '', ['X-Echo', 'got Bearer token-1 from you', 'X-Other', 'kept', 'WWW-Authenticate', 'token-1']))
    expect((await call.send()).fields).toEqual(['X-Other', 'kept'])
  })

  test('of 401 is asked again once with the renewed token', async () => {
    const call = await calling({}, (_request, count) => (count === 1 ? answerOf(401) : ok()))
    expect((await call.send({ method: 'POST', body: bytesBody('payload') })).status).toBe(200)
    expect(call.sent.map((request) => request.fields[1])).toEqual(['Bearer token-1', 'Bearer token-2'])
    expect(call.sent[1]?.body).toEqual(bytesBody('payload'))
  })

  test('of 401 twice is handed over: one replay, whatever happens', async () => {
    const call = await calling({}, () => answerOf(401, 'no', ['WWW-Authenticate', 'Bearer error="invalid_token"']))
    const answer = await call.send()
    expect(answer.status).toBe(401)
    expect(answer.body).toEqual(bytesBody('no'))
    expect(call.sent).toHaveLength(2)
    expect(call.events.filter((event) => event.kind === 'auth-error')).toEqual([
      { kind: 'auth-error', upstream: 'acme', credential: 'a', status: 401, challenge: 'Bearer error="invalid_token"' },
      { kind: 'auth-error', upstream: 'acme', credential: 'a', status: 401, challenge: 'Bearer error="invalid_token"' }
    ])
  })

  test('of 401 is handed over where no other token is to be had', async () => {
    const call = await calling({}, () => answerOf(401, 'no'))
    const first = call.send()
    call.one.service.answer = (_asked, count) => (count === 1 ? issued('token-1') : json(500, {}))
    expect((await first).status).toBe(401)
    expect(call.sent).toHaveLength(1)
  })

  test('of 401 to a body that is gone is handed over, and the next upload finds a good token', async () => {
    const call = await calling({}, (request) => answerOf(request.fields[1] === 'Bearer token-1' ? 401 : 200))
    const upload = async (): Promise<number> =>
      (await call.send({ method: 'POST', body: { kind: 'stream', stream: Readable.from(['x']), sizeBytes: undefined } })).status
    expect([await upload(), await upload(), await upload()]).toEqual([401, 200, 200])
    expect(call.sent.map((request) => request.fields[1])).toEqual(['Bearer token-1', 'Bearer token-2', 'Bearer token-2'])
    expect(call.one.service.asked).toHaveLength(2)
  })

  test('of 401 that is asked again is thrown away, its connection with it', async () => {
    const stream = Readable.from(['never read'])
    const call = await calling({}, (_request, count) => (count === 1 ? { ...answerOf(401), body: { kind: 'stream', stream, sizeBytes: undefined } } : ok()))
    await call.send()
    expect(stream.destroyed).toBe(true)
  })

  test('of 403 renews nothing', async () => {
    const call = await calling({}, () => answerOf(403))
    for (let i = 0; i < 5; i++) expect((await call.send()).status).toBe(403)
    expect(call.sent).toHaveLength(5)
    expect(call.one.service.asked).toHaveLength(1)
    expect(call.events.filter((event) => event.kind === 'auth-error')).toHaveLength(5)
  })

  test('of 401 to a static key is handed over', async () => {
    const call = await calling({ grant: 'static', header: 'X-Api-Key', value: 'k3y-value' }, () => answerOf(401))
    expect((await call.send()).status).toBe(401)
    expect(call.sent).toHaveLength(1)
  })

  test('of 401 reports a challenge without the token in it', async () => {
    const call = await calling({}, () => answerOf(401, '', ['WWW-Authenticate', 'Bearer error="insufficient_scope", error_description="token-1 is weak"']))
    await call.send()
    expect(call.events).toContainEqual(
      expect.objectContaining({ kind: 'auth-error', challenge: 'Bearer error="insufficient_scope", error_description="[secret] is weak"' })
    )
  })
})
