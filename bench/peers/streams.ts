/** A provider of bodies as large as asked for: `GET …/BYTES` sends that many bytes, `POST` reads everything and says how much it was. */
import { createServer, type ServerResponse } from 'node:http'
import { port } from './arguments.ts'

const PIECE = Buffer.alloc(64 * 1024, 'a')

createServer((request, response) => {
  if (request.method === 'POST') {
    let received = 0
    request.on('data', (piece: Buffer) => (received += piece.length)).on('end', () => response.end(String(received)))
    return
  }
  const bytes = Number(/\d+$/.exec(request.url ?? '')?.[0] ?? 0)
  response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': bytes, 'cache-control': 'no-store' })
  send(response, bytes)
}).listen({ port, host: '127.0.0.1', backlog: 8192 })

function send(response: ServerResponse, bytes: number): void {
  let left = bytes
  function more(): void {
    while (left > 0) {
      const piece = left < PIECE.length ? PIECE.subarray(0, left) : PIECE
      left -= piece.length
      if (!response.write(piece)) return
    }
    response.off('drain', more)
    response.end()
  }
  response.on('drain', more)
  more()
}
