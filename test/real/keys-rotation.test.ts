import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { createLocalJWKSet, decodeProtectedHeader, jwtVerify, type JWK } from 'jose'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { DAY_MS } from '../../src/tokens/keys/expiry.ts'
import { listKeys } from '../../src/tokens/keys/key-folder.ts'
import { KeyFolderError } from '../../src/tokens/keys/key-record.ts'
import { beginOverlap, endOverlap, firstKey } from '../../src/tokens/keys/rotation.ts'
import { attache } from '../support/command-line.ts'

const NOW = Date.UTC(2026, 5, 1)

let folder: string
let keys: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'attache-rotation-'))
  keys = join(folder, 'keys')
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const states = async (): Promise<Record<string, string>> => Object.fromEntries((await listKeys(keys, 'partner')).map(({ kid, state }) => [kid, state]))
const make = (now = NOW) => firstKey(keys, { name: 'partner', alg: 'ES256', days: 365, now })
const activeKey = (): string => readFileSync(join(keys, 'partner/active/key.pem'), 'utf8')

describe('an overlap of two keys', () => {
  test('begins with a next key of the same algorithm, while the active one stays in use', async () => {
    const first = await make()
    const before = activeKey()
    const next = await beginOverlap(keys, { name: 'partner', days: 365, now: NOW })
    expect(activeKey()).toBe(before)
    expect(next.publicHalf.alg).toBe('ES256')
    expect(next.activateAt).toBe(NOW + 14 * DAY_MS)
    expect(await states()).toEqual({ [first.publicHalf.kid]: 'active', [next.publicHalf.kid]: 'next' })
  })

  test('needs an active key, and there is one next key at a time', async () => {
    const options = { name: 'partner', days: 365, now: NOW }
    await expect(beginOverlap(keys, options)).rejects.toThrow('partner has no key yet, make one with attache keys new')
    await make()
    await beginOverlap(keys, options)
    await expect(beginOverlap(keys, options)).rejects.toThrow('partner has a next key already, take it into use with attache keys retire')
  })

  test('does not end before its activation date, unless early', async () => {
    await make()
    const { activateAt } = await beginOverlap(keys, { name: 'partner', days: 365, now: NOW })
    const end = (now: number, early: boolean) => endOverlap(keys, { name: 'partner', now, early, prove: undefined })
    await expect(end(activateAt - 1, false)).rejects.toThrow('takes over from 2026-06-15 on')
    await expect(end(activateAt, false)).resolves.toBeDefined()
  })

  test('ends with key and certificate swapped in one step, and the old pair kept aside', async () => {
    const first = await make()
    const old = activeKey()
    const next = await beginOverlap(keys, { name: 'partner', days: 365, now: NOW })
    const { retired } = await endOverlap(keys, { name: 'partner', now: NOW, early: true, prove: undefined })
    expect(await states()).toEqual({ [first.publicHalf.kid]: 'retired', [next.publicHalf.kid]: 'active' })
    expect(readFileSync(join(keys, 'partner/active/certificate.pem'), 'utf8')).toBe(next.publicHalf.certificatePem)
    expect(readFileSync(join(retired.folder, 'key.pem'), 'utf8')).toBe(old)
    expect(existsSync(join(keys, 'partner/next'))).toBe(false)
  })

  test('does not end on a key that the token service refuses, and asks only once for one it granted', async () => {
    await make()
    const next = await beginOverlap(keys, { name: 'partner', days: 365, now: NOW })
    const before = activeKey()
    const end = (answer: 'granted' | 'refused') =>
      endOverlap(keys, {
        name: 'partner',
        now: NOW,
        early: true,
        prove: async (_active, asked) => {
          expect(asked.kid).toBe(next.publicHalf.kid)
          return answer === 'granted' ? { kind: 'granted' } : { kind: 'refused', reason: 'it does not know it' }
        }
      })
    await expect(end('refused')).rejects.toThrow(new KeyFolderError('the next key of partner is not proven, the active one stays: it does not know it'))
    expect(activeKey()).toBe(before)
    await end('granted')
    expect((await listKeys(keys, 'partner')).find((key) => key.state === 'active')?.provenAt).toBe(NOW)
  })

  test('interrupted between its two steps leaves a working key and an old one that counts as retired', async () => {
    const first = await make()
    const next = await beginOverlap(keys, { name: 'partner', days: 365, now: NOW })
    // What a kill after the swap leaves: the links say so, the old folder has not been moved.
    rmSync(join(keys, 'partner/next'))
    rmSync(join(keys, 'partner/active'))
    symlinkSync(next.folder.split('/').at(-1) ?? '', join(keys, 'partner/active'))
    expect(await states()).toEqual({ [first.publicHalf.kid]: 'retired', [next.publicHalf.kid]: 'active' })
    await expect(beginOverlap(keys, { name: 'partner', days: 365, now: NOW })).resolves.toBeDefined()
  })
})

describe('attache keys retire', () => {
  let service: Server
  let known: JWK[]
  let seen: string[]
  let config: string

  beforeEach(async () => {
    known = []
    seen = []
    service = createServer(
      (request, response) =>
        void grant(request).then((answer) => response.writeHead(answer.status, { 'content-type': 'application/json' }).end(JSON.stringify(answer.body)))
    )
    service.listen(0, '127.0.0.1')
    await once(service, 'listening')
    const address = service.address()
    const port = typeof address === 'object' ? address?.port : undefined
    config = join(folder, 'attache.yaml')
    writeFileSync(
      config,
      `version: 1
credentials:
  partner-api:
    grant: client_credentials
    clientAuth: private_key_jwt
    tokenUrl: http://127.0.0.1:${port}/token
    clientId: partner-1
    key: file:keys/partner/active/key.pem
    certificate: file:keys/partner/active/certificate.pem
upstreams:
  api: { baseUrl: "http://127.0.0.1:9/", credential: partner-api }
`
    )
  })
  afterEach(() => service.close())

  async function grant(request: Parameters<typeof text>[0]): Promise<{ status: number; body: object }> {
    const assertion = new URLSearchParams(await text(request)).get('client_assertion') ?? ''
    const { kid = '', alg } = decodeProtectedHeader(assertion)
    seen.push(`${alg} ${kid}`)
    try {
      await jwtVerify(assertion, createLocalJWKSet({ keys: known }), { issuer: 'partner-1', subject: 'partner-1' })
      return { status: 200, body: { access_token: 'CANARY-AT', token_type: 'Bearer', expires_in: 3600 } }
    } catch {
      return { status: 401, body: { error: 'invalid_client' } }
    }
  }

  test('asks the real token service with the next key: refused, nothing changes; granted, it takes over', async () => {
    const now = Date.now()
    const first = await make(now)
    const next = await beginOverlap(keys, { name: 'partner', days: 365, now, activateAt: now })
    known = [first.publicHalf.jwk]
    const before = activeKey()

    const refused = await attache(['keys', 'retire', '--name', 'partner', '--config', config], folder)
    expect(refused).toMatchObject({ code: 1, out: '' })
    expect(refused.err).toContain('the next key of partner is not proven, the active one stays')
    expect(activeKey()).toBe(before)

    known = [first.publicHalf.jwk, next.publicHalf.jwk]
    const granted = await attache(['keys', 'retire', '--name', 'partner', '--config', config], folder)
    expect(granted).toMatchObject({ code: 0, err: '' })
    expect(granted.out).toContain(`${next.publicHalf.kid} is the active key of partner now`)
    expect(await states()).toEqual({ [first.publicHalf.kid]: 'retired', [next.publicHalf.kid]: 'active' })
    expect(seen).toEqual(Array(2).fill(`ES256 ${next.publicHalf.kid}`))
    expect(JSON.stringify([refused, granted])).not.toContain('CANARY')
    for (const file of readdirSync(folder)) expect(file).not.toContain('.db')
  })

  test('says what is missing where no credential uses the active key', async () => {
    const now = Date.now()
    await make(now)
    await beginOverlap(keys, { name: 'partner', days: 365, now, activateAt: now })
    writeFileSync(config, 'version: 1\nupstreams:\n  api: { baseUrl: "http://127.0.0.1:9/", credential: none }\n')
    const ran = await attache(['keys', 'retire', '--name', 'partner', '--config', config], folder)
    expect(ran).toMatchObject({ code: 1, out: '', err: expect.stringContaining('name one with --credential') })
    expect(seen).toEqual([])
  })
})
