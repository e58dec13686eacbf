import { connect } from 'node:net'

/** Sends bytes on a fresh connection and gives what comes back: one whole answer, or all until the other side closes or falls silent. */
export function exchangeRaw(url: string, bytes: string, options: { silenceMs?: number } = {}): Promise<{ text: string; closed: boolean }> {
  const { hostname, port } = new URL(url)
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname, () => socket.write(Buffer.from(bytes, 'latin1')))
    const chunks: Buffer[] = []
    const done = (closed: boolean): void => {
      socket.destroy()
      resolve({ text: Buffer.concat(chunks).toString('latin1'), closed })
    }
    socket.setTimeout(options.silenceMs ?? 300, () => done(false))
    socket.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      if (isWhole(Buffer.concat(chunks).toString('latin1'))) done(false)
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
