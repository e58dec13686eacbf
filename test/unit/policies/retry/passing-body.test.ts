import { PassThrough, Readable } from 'node:stream'
import { expect, test } from 'vitest'
import type { Body } from '../../../../src/exchange/message.ts'
import { PassingBody } from '../../../../src/policies/retry/passing-body.ts'

function passing(stream: Readable, readAt?: () => number): PassingBody {
  return new PassingBody({ kind: 'stream', stream, sizeBytes: 10, ...(readAt === undefined ? {} : { readAt }) })
}

function streamOf(body: Body): Readable {
  if (body.kind !== 'stream') throw new Error('not a stream')
  return body.stream
}

async function textOf(body: Body): Promise<string> {
  let text = ''
  for await (const chunk of streamOf(body)) text += String(chunk)
  return text
}

test('an attempt that never read it leaves it whole for the next one', async () => {
  const body = passing(Readable.from([Buffer.from('hello'), Buffer.from('world')]))
  streamOf(body.next()).destroy(new Error('connection refused'))
  expect(body.isUnread).toBe(true)
  expect(await textOf(body.next())).toBe('helloworld')
  expect(body.isUnread).toBe(false)
})

test('it announces the same length and keeps telling when it was read last', () => {
  expect(passing(new PassThrough(), () => 7).next()).toMatchObject({ sizeBytes: 10, readAt: expect.any(Function) })
})

test('a slow provider slows down the caller', async () => {
  const source = new PassThrough({ highWaterMark: 1024 })
  const stream = streamOf(passing(source).next())
  stream.read(0)
  for (let i = 0; i < 20; i++) source.write(Buffer.alloc(16 * 1024))
  await new Promise((resolve) => setImmediate(resolve))
  expect(source.isPaused()).toBe(true)
  expect(stream.readableLength).toBeLessThan(100 * 1024)
  stream.destroy()
})

test('a caller that breaks off fails the attempt; an attempt that breaks off lets go of the caller', async () => {
  const leaving = new PassThrough()
  const reading = textOf(passing(leaving).next())
  leaving.write('half')
  leaving.destroy(new Error('reset'))
  await expect(reading).rejects.toThrow('reset')
  const source = new PassThrough()
  const stream = streamOf(passing(source).next())
  stream.read(0)
  stream.destroy()
  expect(source.destroyed).toBe(true)
})
