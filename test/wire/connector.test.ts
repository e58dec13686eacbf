import type { Socket } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { connector } from '../../src/transport/connector.ts'
import { testClock } from '../support/clock.ts'
import { faultServer, silentTlsServer, type FaultServer } from '../support/fault-server.ts'
import { testSidecar, type TestSidecar } from '../support/sidecar.ts'

const CONTINUE = 'HTTP/1.1 100 Continue\r\nX-Note: go on\r\n\r\n'
const ANSWER = 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine'

async function answer(socket: Socket, target: string): Promise<void> {
  const [, kind, at] = target.split('/')
  if (kind === 'split') await inTwo(socket, CONTINUE + ANSWER, Number(at))
  if (kind === 'twice') socket.write(CONTINUE + CONTINUE + ANSWER)
  if (kind === 'endless') socket.write(`HTTP/1.1 100 ${'x'.repeat(5000)}`)
  const header = `HTTP/1.1 200 OK\r\nContent-Length: ${CONTINUE.length}\r\n\r\n`
  if (kind === 'body') await inTwo(socket, header + CONTINUE, header.length)
}

/** The first part is on its way before the second is written. */
async function inTwo(socket: Socket, bytes: string, at: number): Promise<void> {
  socket.write(bytes.slice(0, at))
  for (let turn = 0; turn < 5; turn++) await setImmediate()
  socket.write(bytes.slice(at))
}

test('a connection that is not accepted is given up when its time is over', async () => {
  const silent = await silentTlsServer()
  const clock = testClock()
  let failure: Error | null | undefined
  const { port } = new URL(silent.url)
  connector({ connectMs: 700, tls: {} }, clock)({ hostname: '127.0.0.1', protocol: 'https:', port }, (...[error]) => void (failure = error))
  await clock.advance(699)
  expect(failure).toBeUndefined()
  await clock.advance(1)
  expect(failure).toMatchObject({ name: 'ConnectTimeoutError' })
  await silent.close()
})

describe('100 Continue that nobody asked for', () => {
  let provider: FaultServer
  let sidecar: TestSidecar

  beforeAll(async () => {
    provider = await faultServer((socket, { target }) => void answer(socket, target))
    sidecar = await testSidecar(`upstreams: { up: { baseUrl: "${provider.url}", retry: { attempts: 1 }, timeout: { response: 1s } } }`)
  })
  afterAll(async () => {
    await sidecar.stop()
    await provider.close()
  })

  const ask = async (path: string) => {
    const answer = await fetch(`${sidecar.dataUrl}/up/${path}`)
    return [answer.status, await answer.text()]
  }

  test('is left out, wherever it is split', async () => {
    for (let at = 0; at <= CONTINUE.length + 20; at++) expect(await ask(`split/${at}`)).toEqual([200, 'fine'])
  })

  test('may come more than once', async () => {
    expect(await ask('twice')).toEqual([200, 'fine'])
  })

  test('without end is no answer', async () => {
    expect(await ask('endless')).toEqual([504, expect.stringContaining('upstream-timeout')])
  })

  test('in a body is the body', async () => {
    expect(await ask('body')).toEqual([200, CONTINUE])
  })
})
