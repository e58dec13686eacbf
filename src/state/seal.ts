import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto'

const FORMAT = 1
const NONCE_BYTES = 12
const TAG_BYTES = 16
const HEADER_BYTES = 1 + NONCE_BYTES + TAG_BYTES

/**
 * Derives the key that seals a credential's records from the credential itself (HKDF-SHA256, RFC 5869).
 *
 * So there is no further secret to keep, and whoever cannot log in with the credential cannot read what was obtained
 * with it; a changed secret makes old records unreadable, which is wanted. `info` separates purposes. 32 bytes.
 */
export function sealingKey(material: string | Buffer, info: string): Buffer {
  return Buffer.from(hkdfSync('sha256', material, 'attache-state', info, 32))
}

/**
 * Encrypts and authenticates `plain` (AES-256-GCM, NIST SP 800-38D): format byte, nonce, tag, ciphertext.
 *
 * `context` is authenticated but not stored (typically the record's key), so that a record copied to another place
 * does not open there. Random nonces keep one key good for 2^32 records.
 */
export function seal(key: Buffer, plain: Buffer, context: string): Buffer {
  const nonce = randomBytes(NONCE_BYTES)
  const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES })
  cipher.setAAD(Buffer.from(context))
  const ciphertext = Buffer.concat([cipher.update(plain), cipher.final()])
  return Buffer.concat([Buffer.of(FORMAT), nonce, cipher.getAuthTag(), ciphertext])
}

/** Opens what `seal` made; undefined where key, context or any bit of it differs. Never throws on what was stored. */
export function open(key: Buffer, sealed: Buffer, context: string): Buffer | undefined {
  if (sealed.length < HEADER_BYTES || sealed[0] !== FORMAT) return undefined
  const nonce = sealed.subarray(1, 1 + NONCE_BYTES)
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES })
  decipher.setAAD(Buffer.from(context))
  decipher.setAuthTag(sealed.subarray(1 + NONCE_BYTES, HEADER_BYTES))
  const plain = decipher.update(sealed.subarray(HEADER_BYTES))
  try {
    return Buffer.concat([plain, decipher.final()])
  } catch {
    // A wrong tag is the expected answer to a tampered or foreign record, not a fault: the record counts as absent.
    return undefined
  }
}
