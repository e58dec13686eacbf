import { request } from 'node:http'
import { createServer, connect, type AddressInfo } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../src/exchange/clock.ts'
import { redirectListener } from '../../src/server/redirect.ts'
import type { Redirect } from '../../src/tokens/login.ts'

const cleanUps: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp()
})

async function listening(uri = 'http://127.0.0.1/callback', port?: number): Promise<Redirect & { received: string[] }> {
  const received: string[] = []
  const redirect = await redirectListener(systemClock())(uri, port, async (response) => {
    received.push(response.toString())
    return { status: 200, text: 'Signed in.' }
  })
  cleanUps.push(() => redirect.close())
  return { ...redirect, received }
}

function send(uri: string, method: string, headers: Readonly<Record<string, string>>, body = ''): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const sent = request(uri, { method, headers }, (response) => {
      response.resume()
      resolve(response.statusCode)
    })
    sent.once('error', reject)
    sent.end(body)
  })
}

describe('the place a browser comes back to', () => {
  it('takes a query and a form, and answers with a plain page that nobody keeps', async () => {
    const { uri, received } = await listening()
    const answer = await fetch(`${uri}?code=a%2Bb&state=s`)
    expect(await answer.text()).toMatch(/^<!doctype html>\n<html lang="en">[^]*<p>Signed in\.<\/p>/)
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      'content-type': 'text/html; charset=utf-8',
      'cache-control': 'no-store',
      'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
      'referrer-policy': 'no-referrer',
      connection: 'close'
    })
    // as a browser does it from the provider's page
    const form = await fetch(uri, {
      method: 'POST',
      headers: { origin: 'https://login.example', 'sec-fetch-site': 'cross-site' },
      body: new URLSearchParams({ code: 'ü', state: 's' })
    })
    expect(form.status).toBe(200)
    expect(received).toEqual(['code=a%2Bb&state=s', 'code=%C3%BC&state=s'])
  })

  it.each([
    ['http://127.0.0.1/callback', undefined, /^http:\/\/127\.0\.0\.1:\d+\/callback$/],
    ['http://localhost/a/b?tenant=1', undefined, /^http:\/\/localhost:\d+\/a\/b\?tenant=1$/],
    ['http://[::1]/callback', undefined, /^http:\/\/\[::1\]:\d+\/callback$/]
  ])('is at any free port where %s names none', async (uri, port, expected) => {
    const one = await listening(uri, port)
    expect(one.uri).toMatch(expected)
    expect((await fetch(one.uri)).status).toBe(200)
    expect((await listening(uri, port)).uri).not.toBe(one.uri)
  })

  it('is at the port that is named, and one said by hand goes first', async () => {
    const free = await freePort()
    expect((await listening(`http://127.0.0.1:${free}/callback`)).uri).toBe(`http://127.0.0.1:${free}/callback`)
    const other = await freePort()
    expect((await listening(`http://127.0.0.1:${free}/callback`, other)).uri).toBe(`http://127.0.0.1:${other}/callback`)
  })

  it('says so where the port is taken', async () => {
    const { uri } = await listening()
    const { port } = new URL(uri)
    await expect(listening(uri)).rejects.toThrow(
      `cannot wait for the browser at 127.0.0.1:${port}, something else listens there: choose another port with --port or in redirectUri`
    )
  })

  it.each([
    ['another path', 'GET', '/other', {}, '', 404],
    ['an icon', 'GET', '/favicon.ico', {}, '', 404],
    ['a path that is none', 'GET', '//', {}, '', 404],
    ['another method', 'PUT', '/callback', {}, 'x', 405],
    ['another name that leads here', 'GET', '/callback?code=1', { host: 'rebound.example' }, '', 421],
    ['too much for a form', 'POST', '/callback', {}, 'x'.repeat(70_000), 413]
  ])('turns %s away', async (_name, method, path, headers, body, status) => {
    const { uri, received } = await listening()
    expect(await send(new URL(uri).origin + path, method, headers, body)).toBe(status)
    expect(received).toEqual([])
  })

  it('survives a browser that breaks off, and does not wait for idle connections at the end', async () => {
    const redirect = await listening()
    const { port } = new URL(redirect.uri)
    const broken = connect(Number(port), '127.0.0.1')
    broken.end(`POST /callback HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nContent-Length: 100\r\n\r\ncode=`)
    await new Promise((resolve) => broken.once('close', resolve).resume())
    const idle = connect(Number(port), '127.0.0.1')
    await new Promise((resolve) => idle.once('connect', resolve))
    const gone = new Promise((resolve) => idle.once('close', resolve).resume())
    await redirect.close()
    await gone
    expect(await send(redirect.uri, 'GET', {}).catch((error: NodeJS.ErrnoException) => error.code)).toBe('ECONNREFUSED')
  })
})

async function freePort(): Promise<number> {
  const probe = createServer()
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve))
  const { port } = probe.address() as AddressInfo
  await new Promise((resolve) => probe.close(resolve))
  return port
}
