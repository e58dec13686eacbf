import { expect, test } from 'vitest'
import { isLoopback } from '../../../src/server/listeners.ts'

test.each([
  ['127.0.0.1', true],
  ['127.9.9.9', true],
  ['localhost', true],
  ['LOCALHOST', true],
  ['::1', true],
  // a name that anybody may have registered
  ['127.evil.example', false],
  ['localhost.evil.example', false],
  ['0.0.0.0', false],
  ['::', false]
])('%s is on loopback: %s', (host, expected) => {
  expect(isLoopback({ kind: 'tcp', host, port: 7601 })).toBe(expected)
})
