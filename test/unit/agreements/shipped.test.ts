import { describe, expect, test } from 'vitest'
import { readAgreement, shippedAgreements } from '../../../src/config/agreement-file.ts'
import { loaded, refused, warned } from '../config/written.ts'

const TENANT = '3f2b1c9e-0a1b-4c2d-8e3f-001122334455'

/** A config under this agreement, with more settings for the upstream and its credential. */
function under(agreement: string, upstream = '', credential = ''): string {
  return `credentials:
  key: { grant: client_credentials, tokenUrl: "http://127.0.0.1:9/t", clientId: a, clientSecret: s${credential === '' ? '' : `, ${credential}`} }
upstreams:
  api:
    baseUrl: http://127.0.0.1:9/
    agreement: ${agreement}
    credential: key
    headers: { S4-TenantId: ${TENANT} }
${upstream.replaceAll(/^/gm, '    ')}
`
}

describe('the agreements that are shipped', () => {
  test('are five, readable, and fulfil themselves', () => {
    expect(shippedAgreements()).toEqual(['dinero', 'finfo', 'info-subscription', 'integration-agreement', 'mediaconnect'])
    for (const name of shippedAgreements()) {
      expect(refused(under(name))).toEqual([])
      expect(warned(under(name))).toEqual([])
    }
  })

  test.each([
    ['integration', 'integration-agreement'],
    ['connect', 'mediaconnect'],
    ['unite-connect', 'mediaconnect'],
    ['infosubscription', 'info-subscription'],
    ['dinero-visma', 'dinero']
  ])('are found by other names too: %s is %s', (alias, name) => {
    const result = readAgreement(alias, '/nonexistent')
    expect(result.kind === 'read' && result.agreement.name).toBe(name)
  })

  test.each([
    ['integration-agreement', 0.7],
    ['dinero', 0.95],
    ['finfo', 0.95],
    ['mediaconnect', 0.95],
    ['info-subscription', 0.95]
  ])('%s keeps a token for %d of its lifetime', (name, share) => {
    expect(loaded(under(name)).config.credentials['key']?.minUse).toBe(share)
  })
})

describe('a laxer setting is refused, naming the clause', () => {
  test.each([
    ['integration-agreement', 'IA-13', '', 'minUse: 0.69'],
    ['integration-agreement', 'IA-34', 'retry: { attempts: 2 }', ''],
    ['integration-agreement', 'IA-34', 'retry: { on: [503] }', ''],
    ['integration-agreement', 'IA-35', 'retry: { backoff: [1s, 30s, 60s] }', ''],
    ['integration-agreement', 'IA-35', 'retry: { backoff: [10s] }', ''],
    ['integration-agreement', 'IA-39', 'breaker: { cooldown: 10s }', ''],
    ['integration-agreement', 'IA-39', 'breaker: { failures: 1000 }', ''],
    ['integration-agreement', 'IA-41', 'timeout: { response: 10m }', ''],
    ['integration-agreement', 'IA-42', 'timeout: { idle: 1h }', ''],
    ['dinero', 'DI-03', 'volume: { limits: [200/1m] }', ''],
    ['dinero', 'DI-03', 'volume: { limits: [] }', ''],
    ['dinero', 'DI-12', '', 'minUse: 0.5'],
    ['dinero', 'DI-23', 'waitDefault: { 429: 5s }', ''],
    ['finfo', 'FI-19', '', 'minUse: 0.9'],
    ['mediaconnect', 'MC-40', 'volume: { limits: [200/1s, 1900/1m] }', ''],
    ['mediaconnect', 'MC-40', 'volume: { limits: [95/1s] }', ''],
    ['mediaconnect', 'MC-41', '', 'minUse: 0.7'],
    ['info-subscription', 'IS-62', '', 'minUse: 0.7'],
    ['info-subscription', 'IS-52', 'waitDefault: { 503: 10s }', ''],
    ['info-subscription', 'IS-37', 'async: { poll: { factor: 1 } }', '']
  ])('%s %s: %s%s', (name, clause, upstream, credential) => {
    const found = refused(under(name, upstream, credential))
    expect(found).toHaveLength(1)
    expect(found[0]).toContain(` ${clause}: `)
  })

  test('and a stricter one is accepted', () => {
    const strict = 'retry: { attempts: 5, backoff: [20s, 60s] }\nbreaker: { failures: 3, cooldown: 120s }\ntimeout: { response: 10s }'
    expect(refused(under('integration-agreement', strict, 'minUse: 0.9'))).toEqual([])
  })

  test('the ladder is judged as far as it is climbed', () => {
    expect(refused(under('integration-agreement', 'retry: { attempts: 3, backoff: [10s, 30s] }'))).toEqual([])
    expect(refused(under('integration-agreement', 'retry: { attempts: 4, backoff: [10s, 30s] }'))).toHaveLength(1)
  })

  test('several at once are all named, at their keys', () => {
    expect(
      refused(under('integration-agreement', 'retry: { attempts: 1 }\nbreaker: { cooldown: 1s }', 'minUse: 0')).map((finding) => finding.split(': ')[1])
    ).toEqual(['credentials.key.minUse', 'upstreams.api.retry.attempts', 'upstreams.api.breaker.cooldown'])
  })

  test('a credential without tokens is not held to rules for tokens', () => {
    const yaml = `credentials:\n  key: { grant: static, header: X-Key, value: v, minUse: 0 }\nupstreams:\n  api: { baseUrl: "http://127.0.0.1:9/", agreement: finfo, credential: key }\n`
    expect(refused(yaml)).toEqual([])
  })

  test('a tenant that is missing or no UUID is refused', () => {
    const without = under('info-subscription').replace(/ {4}headers.*\n/, '')
    expect(refused(without)).toEqual([expect.stringContaining('upstreams.api.headers.S4-TenantId: is missing, INFO-Subscription getting started IS-15')])
    expect(refused(under('info-subscription').replace(TENANT, 'acme'))).toEqual([expect.stringContaining('must be a UUID')])
  })
})

describe('a waiver', () => {
  const waived = (clause: string, until: string): string =>
    under('integration-agreement', `waivers: [{ clause: ${clause}, reason: agreed by mail, until: ${until} }]`, 'minUse: 0.5')
  const on = (date: string) => ({ wallNow: () => Date.parse(`${date}T12:00:00Z`) })

  test('lets its clause be broken up to its last day, and says so', () => {
    expect(refused(waived('IA-13', '2027-01-01'), {}, on('2027-01-01'))).toEqual([])
    expect(warned(waived('IA-13', '2027-01-01'), {}, on('2026-12-01'))).toEqual([expect.stringMatching(/waived until 2027-01-01: agreed by mail$/)])
  })

  test('that has ended is refused, at its own line', () => {
    expect(refused(waived('IA-13', '2027-01-01'), {}, on('2027-01-02'))).toEqual([
      expect.stringMatching(/^9: upstreams\.api\.waivers\.0: the waiver for IA-13 ended on 2027-01-01, and credentials\.key\.minUse must be at least 0\.7/)
    ])
  })

  test('for another clause covers nothing', () => {
    expect(refused(waived('IA-39', '2027-01-01'), {}, on('2026-12-01'))).toEqual([expect.stringContaining('IA-13')])
  })

  test('that covers nothing is pointed out', () => {
    expect(warned(under('finfo', 'waivers: [{ clause: FI-91, reason: none, until: 2999-01-01 }]'))).toEqual([
      'upstreams.api.waivers.0: nothing breaks FI-91 of Finfo API integration guide, the waiver can go'
    ])
    expect(warned('upstreams:\n  api: { baseUrl: "http://127.0.0.1:9/", waivers: [{ clause: IA-13, reason: x, until: 2999-01-01 }] }\n')).toEqual([
      'upstreams.api.waivers.0: a waiver needs an agreement to waive'
    ])
  })
})
