import { createServer, type Socket } from 'node:net'
import { brokenTlsServer, faultServer, listening, silentTlsServer, untrustedTlsServer, type Answering, type Arrival, type FaultServer } from './fault-server.ts'

/** `isPrimed`: the first request is answered well, with something that may stand in for errors later; `times`: so often the fault strikes, then all is well. */
export type Scene = { readonly isPrimed: boolean; readonly times: number }

const CACHED = 'HTTP/1.1 200 OK\r\nCache-Control: max-age=0, stale-if-error=3600\r\nETag: "1"\r\nContent-Length: 6\r\nConnection: close\r\n\r\nstored'
const FINE = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok'
const SMALL = 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome of it'
const LARGE = 'HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\nsome of it'
const EVENTS = 'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\nd\r\ndata: first\n\n\r\n'

/** What the provider does instead of answering well, by the names of the fault matrix (test/wire/fault-matrix.json). */
export const FAULTS: Readonly<Record<string, (scene: Scene) => Promise<FaultServer>>> = {
  'connection refused': refused,
  'connection hangs': silentTlsServer,
  'TLS handshake fails': brokenTlsServer,
  'TLS certificate not trusted': untrustedTlsServer,
  'name does not resolve': async () => ({ ...(await faultServer(() => undefined)), url: `http://${'a'.repeat(64)}.invalid` }),
  'reset while the request arrives': resetWhileArriving,
  'reset before the header': answering((socket) => socket.resetAndDestroy()),
  'closed before the header': answering((socket) => socket.end()),
  'reset after the header': answering((socket, arrival) =>
    say(socket, begun(arrival, 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n'), () => socket.resetAndDestroy())
  ),
  'small body cut short': answering((socket, arrival) => say(socket, begun(arrival, SMALL), () => socket.end())),
  'large body reset': answering((socket, arrival) => say(socket, begun(arrival, LARGE), () => socket.resetAndDestroy())),
  'large body cut short': answering((socket, arrival) => say(socket, begun(arrival, LARGE), () => socket.end())),
  'no header': answering(() => undefined),
  'header drop by drop': answering((socket) => drip(socket, 'HTTP/1.1 200 OK\r\n', 'X-Slow: yes\r\n')),
  'small body stalls': answering((socket, arrival) => socket.write(begun(arrival, SMALL))),
  'large body stalls': answering((socket, arrival) => socket.write(begun(arrival, LARGE))),
  'two lengths': answering((socket) => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok')),
  'not HTTP': answering((socket) => socket.end('SSH-2.0-OpenSSH_9.2\r\n')),
  'bad chunk size': answering((socket) => socket.write(`${EVENTS}zz\r\nbroken\r\n`)),
  'interim answers without end': answering((socket) => drip(socket, '', 'HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n'.repeat(10))),
  'header of 100 KB': answering((socket) => socket.write(`HTTP/1.1 200 OK\r\nX-Long: ${'x'.repeat(100_000)}\r\nContent-Length: 2\r\n\r\nok`)),
  'body longer than announced': answering((socket) => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more')),
  '429, Retry-After: 1': status('429 Too Many Requests', 'Retry-After: 1\r\n'),
  '429 without a word': status('429 Too Many Requests'),
  '500': status('500 Internal Server Error'),
  '503, Retry-After: 1': status('503 Service Unavailable', 'Retry-After: 1\r\n'),
  '503, Retry-After: 60': status('503 Service Unavailable', 'Retry-After: 60\r\n'),
  '503 without a word': status('503 Service Unavailable')
}

function answering(fault: Answering): (scene: Scene) => Promise<FaultServer> {
  return ({ isPrimed, times }) =>
    faultServer((socket, arrival, count) => {
      const strikes = isPrimed ? count - 1 : count
      if (strikes === 0) socket.end(CACHED)
      else if (strikes > times) socket.end(FINE)
      else fault(socket, arrival, count)
    })
}

function status(line: string, fields = ''): (scene: Scene) => Promise<FaultServer> {
  return answering((socket) => socket.write(`HTTP/1.1 ${line}\r\n${fields}Content-Length: 5\r\n\r\nsorry`))
}

async function refused({ isPrimed }: Scene): Promise<FaultServer> {
  const server = await faultServer((socket) => {
    server.refuse()
    socket.end(CACHED)
  })
  if (!isPrimed) server.refuse()
  return server
}

function resetWhileArriving({ isPrimed }: Scene): Promise<FaultServer> {
  let isReady = !isPrimed
  const server = createServer((socket) => {
    socket.once('data', () => {
      if (isReady) socket.resetAndDestroy()
      else socket.end(CACHED)
      isReady = true
    })
  })
  return listening(server, 'http', [])
}

// an event stream has begun as soon as its header is there
function begun(arrival: Arrival, otherwise: string): string {
  return arrival.target.startsWith('/events') ? EVENTS : otherwise
}

// what was said should be read before the connection breaks
function say(socket: Socket, text: string, then: () => void): void {
  socket.write(text, () => setTimeout(then, 40))
}

function drip(socket: Socket, first: string, rest: string): void {
  socket.write(first)
  const timer = setInterval(() => socket.write(rest), 20)
  socket.on('close', () => clearInterval(timer))
}
