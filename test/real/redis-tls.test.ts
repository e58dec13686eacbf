import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { systemClock } from '../../src/exchange/clock.ts'
import type { Event } from '../../src/exchange/events.ts'
import { openStore } from '../../src/state/open-store.ts'
import { child } from '../support/child.ts'
import { requireReal } from '../support/real.ts'
import { realRedis, type RealRedis } from '../support/redis.ts'

const binary = requireReal('redis-server')
const openssl = requireReal('openssl')
const CHILD = join(import.meta.dirname, '../support/redis-child.ts')

describe.skipIf(binary === undefined || openssl === undefined)('a Redis behind TLS', () => {
  let folder: string
  let redis: RealRedis
  let url: string

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'attache-redis-tls-'))
    const [key, certificate] = [join(folder, 'key.pem'), join(folder, 'crt.pem')]
    const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-days', '2']
    execFileSync(
      openssl ?? '',
      ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', ...subject, '-keyout', key, '-out', certificate],
      {
        stdio: 'pipe'
      }
    )
    redis = await realRedis(binary ?? '')
    // The plain port is given up for the TLS one.
    const tls = ['--tls-port', String(redis.port), '--tls-cert-file', certificate, '--tls-key-file', key, '--tls-auth-clients', 'no']
    await redis.start('--port', '0', ...tls)
    url = `rediss://localhost:${redis.port}/0`
  })
  afterAll(async () => {
    await redis.remove()
    rmSync(folder, { recursive: true, force: true })
  })

  test('is not believed where nobody trusts its certificate', async () => {
    const events: Event[] = []
    const store = await openStore(url, { clock: systemClock(), random: Math.random, report: (event) => void events.push(event) })
    await store.put('r', Buffer.from('v'))
    await store.close()
    expect(events).toMatchObject([{ kind: 'warning', message: expect.stringContaining('redis cannot be reached') }])
  })

  test('is used where the certificate is trusted and bears the name', async () => {
    process.env['NODE_EXTRA_CA_CERTS'] = join(folder, 'crt.pem')
    try {
      const trusting = child(CHILD, [url])
      expect(await trusting.ended).toBe(0)
      expect(trusting.lines).toEqual(['written'])
      const again = child(CHILD, [url])
      await again.ended
      expect(again.lines).toEqual(['found', 'written'])
      const misnamed = child(CHILD, [url.replace('localhost', '127.0.0.1')])
      await misnamed.ended
      expect(misnamed.lines).toEqual([expect.stringContaining('redis cannot be reached'), 'written'])
    } finally {
      delete process.env['NODE_EXTRA_CA_CERTS']
    }
  })
})
