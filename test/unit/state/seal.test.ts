import fc from 'fast-check'
import { expect, test } from 'vitest'
import { open, seal, sealingKey } from '../../../src/state/seal.ts'

const key = sealingKey('correct horse', 'token')
const bytes = fc.uint8Array({ maxLength: 500 }).map((array) => Buffer.from(array))

test('what was sealed opens with the same key and context', () => {
  fc.assert(
    fc.property(bytes, fc.string(), (plain, context) => {
      expect(open(key, seal(key, plain, context), context)).toEqual(plain)
    })
  )
})

test('any changed byte, cut or addition makes it not open', () => {
  fc.assert(
    fc.property(bytes, fc.nat(), fc.integer({ min: 1, max: 255 }), (plain, position, flip) => {
      const sealed = seal(key, plain, 'c')
      const changed = Buffer.from(sealed)
      const at = position % changed.length
      changed[at] = (changed[at] ?? 0) ^ flip
      expect(open(key, changed, 'c')).toBeUndefined()
      expect(open(key, sealed.subarray(0, position % sealed.length), 'c')).toBeUndefined()
      expect(open(key, Buffer.concat([sealed, Buffer.of(flip)]), 'c')).toBeUndefined()
    })
  )
})

test('whatever is stored, opening it does not throw', () => {
  fc.assert(
    fc.property(bytes, (stored) => {
      // Also bytes that begin like ours, or only the first check would be tested.
      expect(open(key, stored, 'c')).toBeUndefined()
      expect(open(key, Buffer.concat([Buffer.of(1), stored]), 'c')).toBeUndefined()
    })
  )
})

test('another context, secret or purpose does not open it', () => {
  const sealed = seal(key, Buffer.from('token'), 'credential a')
  expect(open(key, sealed, 'credential b')).toBeUndefined()
  expect(open(sealingKey('correct horse!', 'token'), sealed, 'credential a')).toBeUndefined()
  expect(open(sealingKey('correct horse', 'refresh'), sealed, 'credential a')).toBeUndefined()
})

test('sealing twice gives different bytes, and neither shows the plain text', () => {
  const plain = Buffer.from('CANARY-AT')
  const [first, second] = [seal(key, plain, 'c'), seal(key, plain, 'c')]
  expect(first.equals(second)).toBe(false)
  for (const sealed of [first, second]) expect(sealed.includes('CANARY-AT')).toBe(false)
})

test('the key is 32 bytes of HKDF-SHA256, the same over restarts', () => {
  // openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt key:'correct horse' -kdfopt salt:attache-state -kdfopt info:token HKDF
  expect(key.toString('hex')).toBe('739046d3deb256643d83c5887652b29d0221c6727675db2e33d638b7c052d034')
  expect(sealingKey(Buffer.from('correct horse'), 'token')).toEqual(key)
})
