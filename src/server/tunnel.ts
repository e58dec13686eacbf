import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Fields } from '../http/fields.ts'

/** What is left to say when one side has gone may take this long to be taken, in real milliseconds. */
const LAST_WORDS_MS = 5000

/** The header that ends HTTP on a connection (RFC 9110 §15.2.2). */
export function switchingProtocols(protocol: string, fields: Fields): string {
  let header = `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n`
  for (let i = 0; i < fields.length; i += 2) header += `${fields[i]}: ${fields[i + 1]}\r\n`
  return `${header}\r\n`
}

/** Makes two connections one, with back-pressure both ways; when one side goes, so does the other. `head` came first from the caller. */
export function join(caller: Socket, provider: Duplex, head: Buffer): void {
  caller.on('error', () => caller.destroy())
  caller.once('close', () => provider.destroy())
  provider.once('close', () => {
    caller.setTimeout(LAST_WORDS_MS, () => caller.destroy())
    caller.destroySoon()
  })
  if (head.length > 0) caller.unshift(head)
  caller.pipe(provider)
  provider.pipe(caller)
}
