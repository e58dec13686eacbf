import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'

export type SlowProxy = {
  readonly port: number
  /** From now on bytes of the server arrive this late; Infinity: never, and neither does the end of the connection. */
  delay(ms: number): void
  /** From now on every answer is these bytes instead. */
  answerWith(bytes: string): void
  close(): Promise<void>
}

/** A TCP proxy before a loopback port that can be made slow, half-open or mad. */
export async function slowProxy(target: number): Promise<SlowProxy> {
  const sockets = new Set<Socket>()
  let delayMs = 0
  let nonsense: string | undefined

  const server = createServer((near) => {
    const far = connect(target, '127.0.0.1')
    for (const socket of [near, far]) {
      sockets.add(socket)
      socket.on('error', () => socket.destroy())
      socket.on('close', () => sockets.delete(socket))
    }
    near.on('data', (chunk) => (nonsense === undefined ? far.write(chunk) : near.write(nonsense)))
    near.on('close', () => far.destroy())
    far.on('data', (chunk) => void (delayMs === Infinity || setTimeout(() => near.write(chunk), delayMs).unref()))
    far.on('close', () => delayMs !== Infinity && near.destroy())
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')

  return {
    port: address.port,
    delay: (ms) => void (delayMs = ms),
    answerWith: (bytes) => void (nonsense = bytes),
    async close() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    }
  }
}
