import { PassThrough, Readable } from 'node:stream'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Body } from '../../../../src/exchange/message.ts'
import { Replay } from '../../../../src/policies/retry/replay.ts'

function streamBody(stream: Readable, sizeBytes?: number) {
  return { kind: 'stream' as const, stream, sizeBytes }
}

async function textOf(body: Body): Promise<string> {
  if (body.kind !== 'stream') throw new Error('not a stream')
  let text = ''
  for await (const chunk of body.stream) text += String(chunk)
  return text
}

function streamOf(body: Body): Readable {
  if (body.kind !== 'stream') throw new Error('not a stream')
  return body.stream
}

test('each attempt gets the whole body, wherever the one before it stopped reading', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.string({ minLength: 1, maxLength: 20, size: 'max' }), { maxLength: 20 }), fc.nat(20), async (chunks, taken) => {
      const replay = new Replay(streamBody(Readable.from(chunks.map((text) => Buffer.from(text)))), 1 << 20, () => 0)
      const first = streamOf(replay.next())
      let seen = 0
      if (taken > 0) {
        for await (const _chunk of first) {
          seen += 1
          if (seen >= taken) break
        }
      }
      first.destroy()
      expect(replay.isPossible).toBe(true)
      expect(await textOf(replay.next())).toBe(chunks.join(''))
      expect(await textOf(replay.next())).toBe(chunks.join(''))
    }),
    { numRuns: 50 }
  )
})

test('a body over the bound is sent whole once and cannot be sent again', async () => {
  const replay = new Replay(streamBody(Readable.from([Buffer.alloc(60, 'a'), Buffer.alloc(60, 'b')])), 100, () => 0)
  expect(await textOf(replay.next())).toBe('a'.repeat(60) + 'b'.repeat(60))
  expect(replay.isPossible).toBe(false)
})

test('a body of known size over the bound is not even recorded', async () => {
  const source = new PassThrough()
  const replay = new Replay(streamBody(source, 200), 100, () => 0)
  const first = streamOf(replay.next())
  source.write('x')
  await new Promise((resolve) => first.once('readable', resolve))
  expect(replay.isPossible).toBe(false)
})

test('without any bound a body nobody has read yet can still be sent', async () => {
  const replay = new Replay(streamBody(Readable.from([Buffer.from('hello')])), 0, () => 0)
  streamOf(replay.next()).destroy()
  expect(replay.isPossible).toBe(true)
  expect(await textOf(replay.next())).toBe('hello')
  expect(replay.isPossible).toBe(false)
})

test('the caller’s stream is paused while no attempt reads it, and never destroyed', async () => {
  const source = new PassThrough()
  const replay = new Replay(streamBody(source), 1 << 20, () => 0)
  const first = streamOf(replay.next())
  source.write('one')
  await new Promise((resolve) => first.once('readable', resolve))
  first.destroy()
  expect(source.isPaused()).toBe(true)
  expect(source.destroyed).toBe(false)
  source.end('two')
  expect(await textOf(replay.next())).toBe('onetwo')
})

test('a caller that breaks off fails the attempt under way, and there is no other', async () => {
  const source = new PassThrough()
  const replay = new Replay(streamBody(source), 1 << 20, () => 0)
  const reading = textOf(replay.next())
  source.write('half')
  source.destroy(new Error('reset'))
  await expect(reading).rejects.toThrow('reset')
  expect(replay.isPossible).toBe(false)
})

test('it tells when the last piece was taken', async () => {
  let now = 100
  const source = new PassThrough()
  const body = new Replay(streamBody(source), 1 << 20, () => now).next()
  const pieces = streamOf(body)[Symbol.asyncIterator]()
  source.write('one')
  await pieces.next()
  now = 250
  source.write('two')
  await pieces.next()
  expect(body.kind === 'stream' && body.readAt?.()).toBe(250)
})
