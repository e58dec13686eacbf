import fc from 'fast-check'
import { expect, test } from 'vitest'
import { responseControl } from '../../../../src/http/cache-control.ts'
import { storedAnswer, type Draft, type StoredAnswer } from '../../../../src/policies/cache/answer.ts'
import { packed, unpacked } from '../../../../src/policies/cache/packed.ts'

const DRAFT: Draft = {
  key: '0:0:/v',
  target: '/v',
  status: 200,
  fields: ['Cache-Control', 'max-age=60, stale-if-error=5', 'X-Ød', 'é'],
  control: responseControl(['Cache-Control', 'max-age=60, stale-if-error=5'], 'private'),
  validators: { etag: '"1"', lastModified: undefined, dateMs: 5 },
  selecting: [{ name: 'accept', raw: undefined, value: undefined }],
  isNegotiated: true,
  language: 'da',
  arrivedAt: 1_000.5,
  arrivalAgeMs: 3,
  delayAgeMs: 0,
  lifetimeMs: 60_000,
  isExplicit: true,
  local: undefined
}

function described({ body, lastHit: _lastHit, ...draft }: StoredAnswer): unknown {
  return { ...draft, body: body.kind === 'bytes' ? body.bytes.toString('hex') : '' }
}

test('an answer comes out as it went in, save for the time it arrived', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 5000 }), fc.boolean(), async (bytes, isRepetitive) => {
      const body = isRepetitive ? Buffer.alloc(bytes.length, 'ab') : Buffer.from(bytes)
      const answer = storedAnswer(DRAFT, body)
      const out = await unpacked(await packed(answer, 77), DRAFT.key, DRAFT.target, 5000)
      expect(out === undefined ? undefined : described(out)).toEqual(described({ ...answer, arrivedAt: 77 }))
    }),
    { numRuns: 50 }
  )
})

test('what compresses well is compressed, what is coded already or small is not', async () => {
  const size = async (body: Buffer, fields = DRAFT.fields): Promise<number> => (await packed(storedAnswer({ ...DRAFT, fields }, body), 0)).length
  const text = Buffer.alloc(10_000, 'a line of text ')
  expect(await size(text)).toBeLessThan(1_000)
  expect(await size(text, [...DRAFT.fields, 'Content-Encoding', 'gzip'])).toBeGreaterThan(10_000)
  const small = storedAnswer(DRAFT, Buffer.from('small'))
  expect((await packed(small, 0)).toString('latin1')).toContain('small')
})

test('what is larger than the limit, cut or something else altogether is no answer', async () => {
  const whole = await packed(storedAnswer(DRAFT, Buffer.alloc(4_000, 'ab')), 0)
  const raw = await packed(storedAnswer(DRAFT, Buffer.from('small')), 0)
  const read = (record: Buffer, limitBytes = 4_000): Promise<StoredAnswer | undefined> => unpacked(record, DRAFT.key, DRAFT.target, limitBytes)
  expect(await read(whole)).toBeDefined()
  expect(await read(whole, 3_999)).toBeUndefined()
  for (const cut of [0, 1, 4, 5, 20, whole.length - 1]) expect(await read(whole.subarray(0, cut))).toBeUndefined()
  for (const cut of [5, 50, 100]) expect(await read(raw.subarray(0, cut))).toBeUndefined()
  expect(await read(Buffer.from('something else altogether'))).toBeUndefined()
})
