import { connect } from 'node:net'

const SILENCE_MS = 20_000

/** Sends bytes on a fresh connection and gives what comes back: one whole answer, or what `until` matches, or all until the other side closes; what does neither within 20 s is given as it is. */
export function exchangeRaw(url: string, bytes: string, options: { until?: RegExp } = {}): Promise<{ text: string; closed: boolean }> {
  const { hostname, port } = new URL(url)
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname, () => socket.write(Buffer.from(bytes, 'latin1')))
    const chunks: Buffer[] = []
    const done = (closed: boolean): void => {
      socket.destroy()
      resolve({ text: Buffer.concat(chunks).toString('latin1'), closed })
    }
    socket.setTimeout(SILENCE_MS, () => done(false))
    socket.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      const text = Buffer.concat(chunks).toString('latin1')
      if (options.until?.test(text) ?? isWhole(text)) done(false)
    })
    socket.on('end', () => done(true))
    socket.on('error', (error: NodeJS.ErrnoException) => (error.code === 'ECONNRESET' ? done(true) : reject(error)))
  })
}

function isWhole(text: string): boolean {
  const end = text.indexOf('\r\n\r\n')
  const length = /^content-length: (\d+)\r$/im.exec(text.slice(0, end + 2))?.[1]
  return end !== -1 && length !== undefined && text.length >= end + 4 + Number(length)
}

/** The status of the first answer in raw bytes. */
export function statusOf(text: string): number {
  return Number(/^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? 0)
}
