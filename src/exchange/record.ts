/**
 * A record of the state store: a JSON head and raw bytes behind it. `head` must survive `JSON.stringify`.
 */
export function packRecord(head: unknown, bytes: Buffer): Buffer {
  const json = Buffer.from(JSON.stringify(head))
  const length = Buffer.alloc(4)
  length.writeUInt32BE(json.length)
  return Buffer.concat([length, json, bytes])
}

/** Takes apart what `packRecord` made; undefined where it is something else. The head is to be checked by the caller. */
export function unpackRecord(record: Buffer): { head: unknown; bytes: Buffer } | undefined {
  if (record.length < 4) return undefined
  const end = 4 + record.readUInt32BE(0)
  if (end > record.length) return undefined
  try {
    return { head: JSON.parse(record.toString('utf8', 4, end)), bytes: record.subarray(end) }
  } catch {
    // what does not parse was written by something else (an older version, a hand): it counts as absent
    return undefined
  }
}
