import httpProxy from '@fastify/http-proxy'
import fastify from 'fastify'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { isPlainTarget, sidecarReference, targetFault } from '../../../src/http/target.ts'

// What the data port asks about every target that is not plain.
const app = fastify()
const seen: string[] = []
beforeAll(async () => {
  await app.register(httpProxy, {
    prefix: '/up',
    upstream: 'http://provider.invalid/base/',
    rewritePrefix: '/base/',
    handler(request, reply) {
      seen.push(request.raw.url ?? '')
      void reply.send('let through')
      return undefined
    }
  })
  await app.ready()
})
afterAll(() => app.close())

const piece = fc.stringMatching(/^[!$&'()*+,\-./0-9:;=?@A-Z_a-z~%\\# ]{0,6}$/)
const target = fc.array(piece, { maxLength: 6 }).map((pieces) => `/up/${pieces.join('/')}`)

it('whatever is plain would have been let through as it is by the checks that are left out for it', async () => {
  let plain = 0
  await fc.assert(
    fc.asyncProperty(target, async (url) => {
      if (!isPlainTarget(url)) return
      plain += 1
      seen.length = 0
      const path = url.split('?')[0] ?? ''
      expect(targetFault(path)).toBeUndefined()
      const answer = await app.inject({ method: 'GET', url: path })
      expect(answer.statusCode).toBe(200)
      expect(seen).toHaveLength(1)
    }),
    { numRuns: 2000 }
  )
  expect(plain).toBeGreaterThan(100)
})

it.each(['/up/..', '/up/../x', '/up/.', '/up//x', '/up/%2e%2e/x', String.raw`/up/a\b`, '/up/a;b', '/up/a b', '/up/ä', '/up/a#b', '', 'up', '*', '/'])(
  '%s is not plain',
  (url) => {
    expect(isPlainTarget(url)).toBe(false)
  }
)

it.each(['/up/a b', '/up/ä', '/up/a\u007f', '/up/a?ä', '/up/a\u0000'])('%j is refused: its characters must be percent-encoded', (url) => {
  expect(targetFault(url)).toMatch(/percent-encoded/)
})

it.each(['http://name@provider.invalid/base/x', 'http://:word@provider.invalid/base/x'])('%s bears a credential and is no path of the sidecar', (reference) => {
  expect(sidecarReference(reference, '/y', new URL('http://provider.invalid/base/'), '/up')).toBe(reference)
})

it.each(['/up/%', '/up/%2', '/up/%zz'])('%s is refused by what is wrong with it', (url) => {
  expect(targetFault(url)).toMatch(/incomplete percent-encoding/)
})
