/** Gives out the one token the origin accepts, and counts how often it was asked (`GET /count`). */
import { createServer } from 'node:http'
import { BENCH_TOKEN } from '../answers.ts'
import { port } from './arguments.ts'

let asked = 0

createServer((request, response) => {
  if (request.url === '/count') {
    response.end(String(asked))
    return
  }
  request.resume().on('end', () => {
    asked += 1
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ access_token: BENCH_TOKEN, token_type: 'Bearer', expires_in: 3600 }))
  })
}).listen(port, '127.0.0.1')
