import { promisify } from 'node:util'
import { deflateRaw, inflateRaw } from 'node:zlib'
import { hasField } from '../../http/fields.ts'
import { storedAnswer, type Draft, type StoredAnswer } from './answer.ts'

/** What of an answer goes along; key and target are known to whoever finds it. `arrivedAt` is in the tier's time. */
type Packed = Omit<Draft, 'key' | 'target'>

const RAW = 0
const DEFLATED = 1
const HEADER_BYTES = 5

// Smaller ones fit in one packet anyway, and what shrinks by less than a tenth is not worth unpacking.
const WORTH_BYTES = 1024
const WORTH_SHARE = 0.9
/** A record's header; the largest the transport takes in is smaller. */
const HEADER_LIMIT_BYTES = 1024 * 1024

const compress = promisify(deflateRaw)
const decompress = promisify(inflateRaw)

/** An answer as bytes: format, length of the description, description (JSON), body; from 1 KiB on compressed where that pays. */
export async function packed(answer: StoredAnswer, arrivedAt: number): Promise<Buffer> {
  const { key: _key, target: _target, body, sizeBytes: _size, lastHit: _lastHit, ...description } = answer
  const text = Buffer.from(JSON.stringify({ ...description, arrivedAt } satisfies Packed))
  const bytes = body.kind === 'bytes' ? body.bytes : Buffer.alloc(0)
  const header = Buffer.alloc(HEADER_BYTES)
  header.writeUInt32BE(text.length, 1)
  const isDense = hasField(answer.fields, 'content-encoding')
  if (text.length + bytes.length >= WORTH_BYTES && !isDense) {
    const dense = await compress(Buffer.concat([text, bytes]), { level: 3 })
    if (dense.length < WORTH_SHARE * (text.length + bytes.length)) {
      header[0] = DEFLATED
      return Buffer.concat([header, dense])
    }
  }
  header[0] = RAW
  return Buffer.concat([header, text, bytes])
}

/**
 * What `packed` made, as the answer under this key for this target; undefined where it is nothing of the kind or larger than
 * `limitBytes`. Only ever given what was sealed by this version of ourselves, so its shape is known.
 */
export async function unpacked(record: Buffer, key: string, target: string, limitBytes: number): Promise<StoredAnswer | undefined> {
  if (record.length < HEADER_BYTES) return undefined
  const textBytes = record.readUInt32BE(1)
  try {
    const rest = record.subarray(HEADER_BYTES)
    const plain = record[0] === DEFLATED ? await decompress(rest, { maxOutputLength: limitBytes + HEADER_LIMIT_BYTES }) : rest
    const description = JSON.parse(plain.toString('utf8', 0, textBytes)) as Packed
    const body = plain.subarray(textBytes)
    // whoever finds it has not waited for the provider
    return body.length > limitBytes ? undefined : storedAnswer({ ...description, delayAgeMs: 0, key, target }, body)
  } catch {
    // another limit or format than it was made with: as good as absent
    return undefined
  }
}
