import type { Socket } from 'node:net'
import { buildConnector, errors } from 'undici'
import type { Clock } from '../exchange/clock.ts'

export type ConnectorOptions = {
  /** For the TCP and the TLS handshake together. */
  readonly connectMs: number
  readonly tls: { readonly ca?: string; readonly cert?: string; readonly key?: string; readonly passphrase?: string }
}

const CONTINUE = Buffer.from('HTTP/1.1 100 ')
const HEADER_END = '\r\n\r\n'
/** More before the end of a `100 Continue` is left to the parser, which refuses it. */
const LONGEST_CONTINUE_BYTES = 4096

/**
 * undici's way to connect, tamed in two points: its own timer looks once a second, so a connection would be given up to a
 * second late; and it breaks off at a `100 Continue` nobody has asked for, which a server may send (RFC 9110 §15.2.1).
 */
export function connector(options: ConnectorOptions, clock: Clock): buildConnector.connector {
  // its timer stays to close what we no longer wait for
  const connect = buildConnector({ allowH2: false, timeout: Math.max(1, clock.realMs(options.connectMs)), ...options.tls })

  return function connectInTime(to, callback) {
    let isLate = false
    const timer = clock.after(options.connectMs, () => {
      isLate = true
      callback(new errors.ConnectTimeoutError('the connection was not accepted in time'), null)
    })
    connect(to, (error, socket) => {
      timer.cancel()
      if (isLate) return void socket?.destroy()
      return error === null ? callback(null, withoutContinue(socket)) : callback(error, null)
    })
  }
}

/** Leaves `100 Continue` out of what is read from a socket, where an answer may begin: with the first bytes after some were sent. */
export function withoutContinue<S extends Pick<Socket, 'read' | 'bytesWritten'>>(socket: S): S {
  const read = socket.read.bind(socket)
  let answeredAt = 0
  let held: Buffer | undefined

  socket.read = function readAnswer(size?: number): Buffer | null {
    const chunk: Buffer | null = read(size)
    if (chunk === null || (held === undefined && socket.bytesWritten === answeredAt)) return chunk
    let bytes = held === undefined ? chunk : Buffer.concat([held, chunk])
    held = undefined
    while (mayBeContinue(bytes)) {
      const end = bytes.indexOf(HEADER_END)
      if (end === -1 && bytes.length < LONGEST_CONTINUE_BYTES) {
        held = bytes
        return null
      }
      if (end === -1) break
      bytes = bytes.subarray(end + HEADER_END.length)
    }
    if (bytes.length === 0) return null
    answeredAt = socket.bytesWritten
    return bytes
  }
  return socket
}

// also where only its first bytes have arrived
function mayBeContinue(bytes: Buffer): boolean {
  const length = Math.min(bytes.length, CONTINUE.length)
  return length > 0 && CONTINUE.compare(bytes, 0, length, 0, length) === 0
}
