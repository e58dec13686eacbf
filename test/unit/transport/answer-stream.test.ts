import { Writable } from 'node:stream'
import { finished } from 'node:stream/promises'
import { setImmediate as turn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { AnswerStream } from '../../../src/transport/answer-stream.ts'

const PIECE = Buffer.alloc(64 * 1024, 'x')

/** A connection that delivers its pieces as fast as it may, one after the other, some of them at once when it is resumed. */
function connection(pieces: number): { stream: AnswerStream; delivered(): number } {
  let left = pieces
  let isPaused = false
  let isDelivering = false
  const stream = new AnswerStream({
    pause: () => (isPaused = true),
    resume() {
      isPaused = false
      deliver()
    },
    abort: () => (left = 0)
  })
  function deliver(): void {
    if (isDelivering) return
    isDelivering = true
    while (!isPaused && left > 0) {
      left -= 1
      stream.arrived(PIECE)
    }
    isDelivering = false
    if (left === 0 && !stream.readableEnded) {
      left = -1
      stream.push(null)
    }
  }
  return { stream, delivered: () => pieces - Math.max(left, 0) }
}

async function settled(): Promise<void> {
  for (let i = 0; i < 20; i++) await turn()
}

test('a reader that takes nothing holds the connection up: one piece with it, one behind it at most', async () => {
  const { stream, delivered } = connection(100)
  stream.pipe(new Writable({ highWaterMark: 16 * 1024, write: () => undefined }))
  await settled()
  expect(delivered()).toBeLessThanOrEqual(2)
  expect(stream.readableLength).toBeLessThanOrEqual(PIECE.length)
})

test('a reader nobody has given a piece yet holds it up too', async () => {
  const { stream, delivered } = connection(100)
  stream.read(0)
  await settled()
  expect(delivered()).toBe(1)
})

test('a reader that stops and goes on gets every byte', async () => {
  const { stream } = connection(100)
  let received = 0
  stream.pipe(
    new Writable({
      highWaterMark: 16 * 1024,
      write(chunk: Buffer, _encoding, done) {
        received += chunk.length
        void (received % (3 * PIECE.length) === 0 ? settled() : Promise.resolve()).then(() => done())
      }
    })
  )
  await finished(stream)
  await settled()
  expect(received).toBe(100 * PIECE.length)
})

test('a reader that asks piece by piece gets every byte', async () => {
  const { stream } = connection(100)
  let received = 0
  for await (const piece of stream) received += Buffer.isBuffer(piece) ? piece.length : 0
  expect(received).toBe(100 * PIECE.length)
})

test('pausing by hand while nothing has arrived is undone by resuming', async () => {
  const { stream } = connection(3)
  let received = 0
  stream.on('data', (piece: Buffer) => (received += piece.length))
  stream.pause()
  await settled()
  stream.resume()
  await finished(stream)
  expect(received).toBe(3 * PIECE.length)
})
