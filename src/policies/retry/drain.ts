import type { Clock } from '../../exchange/clock.ts'
import { discard, type Body } from '../../exchange/message.ts'

const AT_MOST_BYTES = 64 * 1024
const AT_MOST_MS = 1000

/** Reads an answer nobody wants to its end, so that its connection can be used again; closes it where that takes long. */
export function drain(body: Body, clock: Clock): void {
  if (body.kind !== 'stream') return
  const { stream } = body
  let readBytes = 0
  const timer = clock.after(AT_MOST_MS, () => discard(body))
  stream.on('error', ignoreBreak)
  stream.once('close', () => timer.cancel())
  stream.on('data', (chunk: Buffer) => {
    readBytes += chunk.length
    if (readBytes > AT_MOST_BYTES) discard(body)
  })
}

// it was going to be thrown away
function ignoreBreak(): void {}
