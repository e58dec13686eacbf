import { expect, test } from 'vitest'
import { tightestQuota } from '../../../src/http/rate-limit.ts'

const NOW = Date.UTC(2026, 5, 1, 12, 0, 0)
const EPOCH = NOW / 1000

test.each<[string, string[], { remaining: number; resetMs: number } | undefined]>([
  ['the current draft', ['RateLimit', '"default";r=50;t=30'], { remaining: 50, resetMs: 30_000 }],
  ['several policies: the tightest', ['RateLimit', '"burst";r=3;t=5, "daily";r=0;t=60'], { remaining: 0, resetMs: 60_000 }],
  ['two used up: the longer one', ['RateLimit', '"burst";r=0;t=5, "daily";r=0;t=60'], { remaining: 0, resetMs: 60_000 }],
  ['several lines', ['ratelimit', '"a";r=9;t=5', 'RATELIMIT', '"b";r=1;t=7'], { remaining: 1, resetMs: 7000 }],
  ['a policy without reset is no use', ['RateLimit', '"default";r=0'], undefined],
  ['the dictionary of earlier drafts', ['RateLimit', 'limit=100, remaining=2, reset=9'], { remaining: 2, resetMs: 9000 }],
  ['the old triple', ['RateLimit-Limit', '10', 'RateLimit-Remaining', '4', 'RateLimit-Reset', '8'], { remaining: 4, resetMs: 8000 }],
  ['X- in seconds', ['X-RateLimit-Remaining', '0', 'X-RateLimit-Reset', '12'], { remaining: 0, resetMs: 12_000 }],
  ['X- in epoch seconds', ['X-RateLimit-Remaining', '0', 'X-RateLimit-Reset', String(EPOCH + 15)], { remaining: 0, resetMs: 15_000 }],
  ['X- in epoch milliseconds', ['X-RateLimit-Remaining', '0', 'X-RateLimit-Reset', String(NOW + 1500)], { remaining: 0, resetMs: 1500 }],
  ['X- as a date', ['X-RateLimit-Remaining', '0', 'X-RateLimit-Reset', 'Mon, 01 Jun 2026 12:00:20 GMT'], { remaining: 0, resetMs: 20_000 }],
  ['X- with another hyphen', ['X-Rate-Limit-Remaining', '1', 'X-Rate-Limit-Reset', '3'], { remaining: 1, resetMs: 3000 }],
  ['a time that has passed', ['X-RateLimit-Remaining', '0', 'X-RateLimit-Reset', String(EPOCH - 15)], { remaining: 0, resetMs: 0 }],
  ['malformed', ['RateLimit', '"default;r=0;t=;'], undefined],
  ['text for a number', ['X-RateLimit-Remaining', 'none', 'X-RateLimit-Reset', '12'], undefined],
  ['a reset in a week is a hint for people', ['X-RateLimit-Remaining', '0', 'X-RateLimit-Reset', String(EPOCH + 7 * 86_400)], undefined],
  ['a negative rest', ['RateLimit', '"default";r=-1;t=30'], undefined],
  ['a stored answer tells of the past', ['RateLimit', '"default";r=0;t=30', 'Age', '4'], undefined],
  ['nothing announced', ['Content-Type', 'text/plain'], undefined]
])('%s', (_name, fields, expected) => {
  expect(tightestQuota(fields, NOW)).toEqual(expected)
})
