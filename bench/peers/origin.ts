/** The provider where nginx is not installed; same answers as `nginx.ts` configures. */
import { createServer } from 'node:http'
import { AUTHORIZED_PREFIX, BENCH_TOKEN, LARGE_BYTES, SMALL_BODY } from '../answers.ts'
import { port } from './arguments.ts'

const small = Buffer.from(SMALL_BODY)
const large = Buffer.alloc(LARGE_BYTES, 'a')

createServer((request, response) => {
  const path = request.url ?? '/'
  if (path.startsWith(AUTHORIZED_PREFIX) && request.headers.authorization !== `Bearer ${BENCH_TOKEN}`) {
    response.writeHead(401, { 'content-length': 0 }).end()
    return
  }
  const cacheable = path.includes('/cached/')
  const body = path.endsWith('/large') ? large : small
  response.writeHead(200, {
    'content-type': 'application/json',
    'cache-control': cacheable ? 'max-age=86400' : 'no-store',
    'content-length': body.length
  })
  response.end(body)
}).listen(port, '127.0.0.1')
