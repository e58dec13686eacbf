import type { Readable } from 'node:stream'
import type { Body } from './message.ts'

/**
 * Reads a streamed body to its end, as far as it fits: only bytes can be kept or shared.
 *
 * Gives `bytes` (or `none`) where the body is at most `limitBytes` long, else a stream from which nothing is missing.
 * Rejects with the stream's error where the body breaks off.
 */
export function collect(body: Body, limitBytes: number): Body | Promise<Body> {
  if (body.kind !== 'stream' || (body.sizeBytes !== undefined && body.sizeBytes > limitBytes)) return body
  return gather(body.stream, body.sizeBytes, limitBytes)
}

function gather(stream: Readable, sizeBytes: number | undefined, limitBytes: number): Promise<Body> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let received = 0
    if (stream.destroyed) return reject(brokenOff(stream))

    function settle(): void {
      stream.off('data', onData)
      stream.off('end', onEnd)
      stream.off('close', onClose)
    }
    function onData(chunk: Buffer): void {
      chunks.push(chunk)
      received += chunk.length
      if (received <= limitBytes) return
      settle()
      stream.pause()
      stream.unshift(Buffer.concat(chunks))
      resolve({ kind: 'stream', stream, sizeBytes })
    }
    function onEnd(): void {
      settle()
      resolve(received === 0 ? { kind: 'none' } : { kind: 'bytes', bytes: Buffer.concat(chunks) })
    }
    function onClose(): void {
      settle()
      reject(brokenOff(stream))
    }
    stream.on('data', onData)
    stream.once('end', onEnd)
    stream.once('close', onClose)
    // stays: whoever reads on attaches a listener of its own a moment later than the stream may fail
    stream.on('error', reject)
    return undefined
  })
}

function brokenOff(stream: Readable): Error {
  return stream.errored ?? new Error('the body ended early')
}
