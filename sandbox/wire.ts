import type { IncomingMessage } from 'node:http'
import type { Fields } from './call.ts'

const MOST_BODY_BYTES = 10 * 1024 * 1024

/** Scheme and authority as the caller wrote them. */
export function originOf(request: IncomingMessage): string {
  return `http://${request.headers.host ?? 'localhost'}`
}

/** Field lines in wire order, duplicates kept. */
export function fieldsOf({ rawHeaders }: IncomingMessage): Fields {
  const fields: [string, string][] = []
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) fields.push([rawHeaders[index] ?? '', rawHeaders[index + 1] ?? ''])
  return fields
}

/** The whole body; rejects when the caller leaves or sends more than 10 MiB. */
export async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const pieces: Buffer[] = []
  let size = 0
  for await (const piece of request) {
    if (!Buffer.isBuffer(piece)) continue
    size += piece.length
    if (size > MOST_BODY_BYTES) throw new Error('the body is too large for the sandbox')
    pieces.push(piece)
  }
  return Buffer.concat(pieces)
}
