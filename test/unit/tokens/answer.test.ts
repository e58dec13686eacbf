import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { lifetimeMs, readTokenAnswer, type TokenAnswer } from '../../../src/tokens/answer.ts'
import { printable, TokenFailure } from '../../../src/tokens/failure.ts'

const EXPECTED = { scheme: 'Bearer' as const, defaultLifetimeMs: 300_000, secrets: ['canary-secret'], wallNowMs: Date.UTC(2026, 5, 1) }

function read(text: string, status = 200, fields: readonly string[] = []): TokenAnswer {
  return readTokenAnswer({ status, fields, text }, EXPECTED)
}

function refused(text: string, status = 200, fields: readonly string[] = []): TokenFailure {
  try {
    read(text, status, fields)
  } catch (error) {
    if (error instanceof TokenFailure) return error
  }
  throw new Error(`accepted or broke: ${text.slice(0, 80)}`)
}

const good = (more: Readonly<Record<string, unknown>>): string => JSON.stringify({ access_token: 'token', token_type: 'Bearer', expires_in: 60, ...more })

describe('an answer with a token', () => {
  test('is read whatever else is in it', () => {
    const answer = read(
      good({
        token_type: 'bearer',
        scope: 'openid email',
        'not-before-policy': 0,
        session_state: 7,
        id_token: {},
        refresh_token: 'r',
        refresh_expires_in: 1800
      })
    )
    expect(answer).toEqual({ accessToken: 'token', scheme: 'Bearer', lifetimeMs: 60_000, refreshToken: 'r', refreshLifetimeMs: 1_800_000 })
  })

  test('may begin with a byte order mark', () => {
    expect(read(`\uFEFF${good({})}`).accessToken).toBe('token')
  })

  test('takes the last of doubled members', () => {
    expect(read('{"access_token":"first","access_token":"second","token_type":"Bearer"}').accessToken).toBe('second')
  })

  test('pollutes nothing with __proto__', () => {
    expect(read('{"__proto__":{"refresh_token":"polluted"},"access_token":"t","token_type":"Bearer"}').refreshToken).toBeUndefined()
    expect(Object.hasOwn(Object.prototype, 'refresh_token')).toBe(false)
  })

  test('has a refresh token that does not end where the service says 0', () => {
    expect(read(good({ refresh_token: 'r', refresh_expires_in: 0 })).refreshLifetimeMs).toBeUndefined()
  })

  test('loses a refresh token that is none', () => {
    for (const odd of [7, '', 'a\r\nb', {}, 'x'.repeat(17_000)]) expect(read(good({ refresh_token: odd })).refreshToken).toBeUndefined()
  })
})

describe('an answer without a usable token', () => {
  test.each([
    ['missing', undefined],
    ['empty', ''],
    ['null', null],
    ['a number', 1],
    ['an object', {}],
    ['a list', []],
    ['longer than 16 KiB', 'x'.repeat(16 * 1024 + 1)],
    ['with a space', 'a b'],
    ['with a line end', 'a\r\nX-Injected: 1'],
    ['with other scripts', 'tøken']
  ])('is refused: access_token %s', (_name, value) => {
    expect(refused(good({ access_token: value })).kind).toBe('unusable')
  })

  test.each([
    ['missing', undefined],
    ['mac', 'mac'],
    ['DPoP although none was proven', 'DPoP'],
    ['a number', 1]
  ])('is refused: token_type %s', (_name, value) => {
    expect(refused(good({ token_type: value })).kind).toBe('unusable')
  })

  test.each([
    ['a page', '<html>log in</html>'],
    ['cut off', '{"access_token":"tok'],
    ['nothing', ''],
    ['a list', '[]'],
    ['text', '"token"'],
    ['ten thousand levels deep', `${'['.repeat(10_000)}${']'.repeat(10_000)}`]
  ])('is refused: %s', (_name, text) => {
    const failure = refused(text)
    expect(failure.kind).toBe('unusable')
    expect(failure.mayHaveArrived).toBe(true)
  })

  test('is described for the log without a word of it', () => {
    const failure = refused('<html>canary-page</html>', 200, ['content-type', 'text/html; charset=utf-8'])
    expect(failure.detail).toMatch(/^200 text\/html, 24 characters, sha256 [0-9a-f]{8}$/)
  })

  test('is an error where it says error, whatever its status', () => {
    expect(refused('{"error":"invalid_client"}')).toMatchObject({ kind: 'refused', error: 'invalid_client', status: 200 })
  })

  test('is never one that another reading would have taken', () => {
    fc.assert(
      fc.property(fc.json(), (text) => {
        try {
          const { accessToken } = read(text)
          return /^[\x21-\x7e]+$/.test(accessToken)
        } catch (error) {
          return error instanceof TokenFailure
        }
      })
    )
  })
})

describe('an error answer', () => {
  test('gives its code, its wait and its words', () => {
    const failure = refused('{"error":"temporarily_unavailable","error_description":"later"}', 503, ['Retry-After', '120'])
    expect(failure).toMatchObject({ kind: 'refused', error: 'temporarily_unavailable', status: 503, retryAfterMs: 120_000, mayHaveArrived: false })
    expect(failure.detail).toBe('503 temporarily_unavailable: later')
  })

  test('loses secrets, control characters and length on the way to the log', () => {
    const words = `\u001b[31mclient canary-secret ${Buffer.from('canary-secret').toString('base64')}\r\n${'x'.repeat(10_000_000)}`
    const { detail = '' } = refused(JSON.stringify({ error: 'invalid_client', error_description: words }), 401)
    expect(detail).toHaveLength(200)
    expect(detail).toMatch(/^[\x20-\x7e]+$/)
    expect(detail).not.toContain('canary-secret')
    expect(detail).toContain('[secret]')
  })

  test('has no code where that is no code', () => {
    expect(refused('{"error":"<script>"}', 400).error).toBeUndefined()
    expect(refused('{"error":{"code":1}}', 400).error).toBeUndefined()
  })

  test('names a redirect as what it is', () => {
    expect(refused('', 302, ['location', 'https://elsewhere.example/']).message).toMatch(/redirects.*never followed/)
  })
})

describe('a lifetime', () => {
  test.each([
    [3600, 3_600_000],
    ['3600', 3_600_000],
    ['86398', 86_398_000],
    [0.5, 1000],
    [599.9, 599_900],
    [1e12, 86_400_000]
  ])('%j is %d ms', (value, expected) => {
    expect(lifetimeMs(value, 300_000)).toBe(expected)
  })

  test.each([undefined, null, 0, -1, '', '3600abc', '-5', ' 60', '1e3', true, [], {}, [60], Number.NaN, Number.POSITIVE_INFINITY])(
    '%j is the default',
    (value) => {
      expect(lifetimeMs(value, 300_000)).toBe(300_000)
    }
  )

  test('is finite and at least a second, whatever the service says', () => {
    fc.assert(
      fc.property(fc.anything(), (value) => {
        const ms = lifetimeMs(value, 300_000)
        return Number.isFinite(ms) && ms >= 1000 && ms <= 365 * 86_400_000
      })
    )
  })
})

describe('a stranger’s text', () => {
  test('never brings a secret along, in any of its usual spellings', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme-ascii', minLength: 8, maxLength: 20 }), fc.string(), (secret, around) => {
        fc.pre(secret.trim().length >= 8)
        const clean = printable(`${around} ${encodeURIComponent(secret)} ${secret}`, [secret])
        return !clean.includes(secret) && !clean.includes(encodeURIComponent(secret))
      })
    )
  })
})
