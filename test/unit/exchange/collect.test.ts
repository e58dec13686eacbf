import { PassThrough, Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { collect } from '../../../src/exchange/collect.ts'
import { NO_BODY, type Body } from '../../../src/exchange/message.ts'
import { packRecord, unpackRecord } from '../../../src/exchange/record.ts'

const streamed = (chunks: string[], sizeBytes?: number): Body => ({
  kind: 'stream',
  stream: Readable.from(
    chunks.map((chunk) => Buffer.from(chunk)),
    { objectMode: false }
  ),
  sizeBytes
})

test('a stream that fits becomes bytes, an empty one none', async () => {
  expect(await collect(streamed(['ab', 'c']), 3)).toEqual({ kind: 'bytes', bytes: Buffer.from('abc') })
  expect(await collect(streamed([]), 3)).toEqual(NO_BODY)
})

test('from a stream that does not fit nothing is missing', async () => {
  const body = await collect(streamed(['ab', 'cd', 'ef', 'gh']), 3)
  expect(body.kind === 'stream' ? (await buffer(body.stream)).toString() : body.kind).toBe('abcdefgh')
})

test('a stream announced too long is not touched, bytes stay what they are', async () => {
  const long = streamed(['abcd'], 4)
  expect(await collect(long, 3)).toBe(long)
  const bytes: Body = { kind: 'bytes', bytes: Buffer.from('long enough') }
  expect(await collect(bytes, 3)).toBe(bytes)
})

test('a body that breaks off rejects, before, while and after being read', async () => {
  const stream = new PassThrough()
  const collected = collect({ kind: 'stream', stream, sizeBytes: undefined }, 100)
  stream.write('half')
  stream.destroy(new Error('reset'))
  await expect(collected).rejects.toThrow('reset')
  await expect(collect({ kind: 'stream', stream, sizeBytes: undefined }, 100)).rejects.toThrow('reset')

  const overlong = new PassThrough()
  const rest = collect({ kind: 'stream', stream: overlong, sizeBytes: undefined }, 1)
  overlong.write('too long')
  expect((await rest).kind).toBe('stream')
  overlong.destroy(new Error('nobody listens yet, and nothing crashes'))
})

test('a record comes back as it was packed', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.uint8Array(), (head, bytes) => {
      const unpacked = unpackRecord(packRecord(head, Buffer.from(bytes)))
      expect(JSON.stringify(unpacked?.head)).toBe(JSON.stringify(head))
      expect(unpacked?.bytes.equals(Buffer.from(bytes))).toBe(true)
    })
  )
})

test('what is no record counts as absent', () => {
  for (const junk of ['', 'ab', '\xff\xff\xff\xffjunk', '\0\0\0\x02{x']) expect(unpackRecord(Buffer.from(junk, 'latin1'))).toBeUndefined()
})
