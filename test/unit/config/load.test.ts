import { chmodSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { loadConfig, type LoadResult } from '../../../src/config/load.ts'
import { showConfig } from '../../../src/config/show.ts'
import { accepted, files, load, loaded, refused, warned } from './written.ts'

const API = 'upstreams:\n  api:\n    baseUrl: http://127.0.0.1:9/\n'

describe('what is not written', () => {
  test('has its default, sections inside sections too', () => {
    const { config } = loaded(API)
    expect(config.listen).toEqual({ kind: 'tcp', host: '127.0.0.1', port: 7600 })
    expect(config.admin.listen).toEqual({ kind: 'tcp', host: '127.0.0.1', port: 7601 })
    expect(config.allowHosts).toEqual(['localhost', '127.0.0.1', '[::1]'])
    expect(config.upstreams['api']).toMatchObject({
      retry: { attempts: 3, backoff: [10_000, 30_000, 60_000], jitter: 0.2 },
      breaker: { failures: 5, cooldown: 60_000, maxCooldown: 300_000 },
      timeout: { connect: 5000, response: 30_000, idle: 30_000, total: 150_000 },
      cache: { mode: 'private', maxBytes: 64 * 1024 ** 2, negative: {} },
      async: { poll: { first: 250, factor: 1.6 } },
      pass: { request: [], response: [] }
    })
  })

  test('beside what is written in the same section has its default', () => {
    expect(loaded(`${API}    timeout: { connect: 1s }\n`).config.upstreams['api']?.timeout).toEqual({
      connect: 1000,
      response: 30_000,
      idle: 30_000,
      total: 150_000
    })
  })

  test('and has no default is not there', () => {
    const { config } = loaded(API)
    expect('credential' in (config.upstreams['api'] ?? {})).toBe(false)
    expect('token' in config.admin).toBe(false)
  })
})

describe('human values', () => {
  test('become numbers once', () => {
    const { config } = loaded(
      `${API}    volume: { limits: [100/1m, 5000/1h] }\n    retry: { bufferBytes: 64KiB }\n    waitDefault: { 503: 3m }\n    lifecycle: [{ match: /a, stage: deprecated, since: 2026-06-01 }]\n`
    )
    expect(config.upstreams['api']).toMatchObject({
      volume: {
        limits: [
          { count: 100, windowMs: 60_000, label: '100/1m' },
          { count: 5000, windowMs: 3_600_000, label: '5000/1h' }
        ]
      },
      retry: { bufferBytes: 65_536 },
      waitDefault: { 503: 180_000 },
      lifecycle: [{ since: Date.UTC(2026, 5, 1) }]
    })
  })

  test('that are paths start at the file, wherever the process runs', () => {
    const file = files({ 'attache.yaml': `state: sqlite:./var/attache.db\nlisten: unix:run/app\n${API}`, x: '' })
    const { config } = accepted(loadConfig(file, {}))
    expect(config.state).toBe(`sqlite:${join(dirname(file), 'var/attache.db')}`)
    expect(config.listen).toEqual({ kind: 'unix', path: join(dirname(file), 'run/app') })
  })

  test.each(['memory:', 'sqlite:/var/lib/attache.db', 'redis://127.0.0.1:6379/2', 'rediss://cache.example:6380/0'])('state %s stays as it is', (state) => {
    expect(loaded(`state: "${state}"\n`).config.state).toBe(state)
  })
})

describe('environment variables', () => {
  test('stand for any part of any text', () => {
    const { config } = loaded('upstreams:\n  api:\n    baseUrl: http://127.0.0.1:${PORT}/${BASE}/\n    headers: { S4-TenantId: "${TENANT}" }\n', {
      PORT: '9000',
      BASE: 'v1',
      TENANT: 't-1'
    })
    expect(config.upstreams['api']).toMatchObject({ baseUrl: 'http://127.0.0.1:9000/v1/', headers: { 'S4-TenantId': 't-1' } })
  })

  test('stand for durations, numbers and flags too', () => {
    const { config } = loaded(`allowRemote: "\${REMOTE}"\n${API}    retry: { attempts: "\${N}" }\n    timeout: { connect: "\${C}" }\n`, {
      REMOTE: 'true',
      N: '5',
      C: '2s'
    })
    expect(config.allowRemote).toBe(true)
    expect(config.upstreams['api']).toMatchObject({ retry: { attempts: 5 }, timeout: { connect: 2000 } })
  })

  test('with an unfit value are refused at the key that uses them', () => {
    expect(refused(`${API}    timeout: { connect: "\${C}" }\n    retry: { attempts: "\${N}" }\n`, { C: 'CANARY', N: 'CANARY' })).toEqual([
      '4: upstreams.api.timeout.connect: must be a duration such as 250ms, 10s, 5m, 1h or 30d',
      '5: upstreams.api.retry.attempts: must be a whole number (Attempts in all)'
    ])
  })

  test('that are not set are each named once', () => {
    expect(refused('upstreams:\n  api:\n    baseUrl: ${A}/${B}\n    headers: { X: "${A}" }\n')).toEqual([
      '3: upstreams.api.baseUrl: the environment variable A is not set, the environment variable B is not set',
      '4: upstreams.api.headers.X: the environment variable A is not set'
    ])
  })

  test('may be empty where an empty text makes sense, and not for a secret', () => {
    expect(loaded(`${API}    headers: { X: "\${E}" }\n`, { E: '' }).config.upstreams['api']?.headers).toEqual({ X: '' })
    expect(refused(`clients: { app: "\${E}" }\n`, { E: '' })).toEqual(['1: clients.app: ${E} is empty'])
  })

  test('are not replaced inside what they stand for', () => {
    expect(loaded(`${API}    headers: { X: "\${A}" }\n`, { A: '${B}', B: 'b' }).config.upstreams['api']?.headers).toEqual({ X: '${B}' })
  })
})

describe('secrets', () => {
  const STATIC = 'credentials:\n  key:\n    grant: static\n    header: X-Key\n'

  test('from the environment and from files are read, and print as their reference', () => {
    const file = files({ 'attache.yaml': `${STATIC}    value: file:secrets/key\nclients: { app: "\${APP}" }\n`, 'secrets/key': 'from-file\n' })
    const { config } = accepted(loadConfig(file, { APP: 'from-env' }))
    expect(config.credentials['key']?.value?.read().reveal()).toBe('from-file')
    expect(config.credentials['key']?.value?.reference).toBe('file:secrets/key')
    expect(config.clients['app']?.read().reveal()).toBe('from-env')
    expect(config.clients['app']?.reference).toBe('${APP}')
    expect(JSON.stringify(config)).not.toMatch(/from-file|from-env/)
  })

  test('in files named by a variable are read', () => {
    const file = files({ 'attache.yaml': `${STATIC}    value: file:\${DIR}/key\n`, 'secrets/key': 'here' })
    expect(
      accepted(loadConfig(file, { DIR: join(dirname(file), 'secrets') }))
        .config.credentials['key']?.value?.read()
        .reveal()
    ).toBe('here')
  })

  test('of a file that becomes unusable are reported to whoever asked', () => {
    const file = files({ 'attache.yaml': `${STATIC}    value: file:key\n`, key: 'good' })
    const warnings: string[] = []
    const { config } = accepted(loadConfig(file, {}, { warn: (about, message) => warnings.push(`${about} ${message}`) }))
    writeFileSync(join(dirname(file), 'key'), '')
    expect(config.credentials['key']?.value?.read().reveal()).toBe('good')
    expect(warnings).toEqual(['file:key is empty; its last good value serves on'])
  })

  test('that others may read are warned about', () => {
    const file = files({ 'attache.yaml': `${STATIC}    value: file:key\n    ca: file:ca\n`, key: 'x', ca: 'y' })
    for (const name of ['key', 'ca']) chmodSync(join(dirname(file), name), 0o644)
    // certificates are public
    expect(
      loadConfig(file, {})
        .warnings.filter((warning) => warning.message.includes('chmod'))
        .map((warning) => warning.key)
    ).toEqual(['credentials.key.value'])
  })

  test('written into the file are refused as soon as anything they serve is not on loopback', () => {
    const literal = `${STATIC}    value: CANARY\n`
    const message = '5: credentials.key.value: a secret must not stand in the file: write ${NAME} or file:/path (a literal is for loopback only)'
    expect(refused(`${literal}upstreams:\n  api: { baseUrl: "http://127.0.0.1:9/", credential: key }\n`)).toEqual([])
    expect(refused(`${literal}upstreams:\n  api: { baseUrl: "https://api.example/", credential: key }\n`)).toEqual([message])
    expect(
      refused(
        `${literal}upstreams:\n  a: { baseUrl: "http://127.0.0.1:9/", credential: key }\n  b: { baseUrl: "https://api.example/", credential: [{ credential: key }] }\n`
      )
    ).toEqual([message])
    const fetched = 'credentials:\n  key: { grant: client_credentials, tokenUrl: URL, clientId: a, clientSecret: CANARY }\n'
    expect(refused(fetched.replace('URL', '"http://127.0.0.1:9/t"'))).toEqual([])
    expect(refused(fetched.replace('URL', '"https://auth.example/t"'))).toEqual([expect.stringContaining('a secret must not stand in the file')])
  })

  test('of callers may stand in the file only where callers are local', () => {
    expect(refused('clients: { app: CANARY }\n')).toEqual([])
    expect(refused('listen: 0.0.0.0:7600\nclients: { app: CANARY }\n')).toEqual([expect.stringContaining('clients.app: a secret must not stand in the file')])
    expect(refused('admin: { listen: 0.0.0.0:7601, token: CANARY }\n')).toEqual([expect.stringContaining('admin.token: a secret must not stand in the file')])
  })

  test('may be given as file: in headers too, and print as their reference there', () => {
    const file = files({ 'attache.yaml': `${API}    headers: { X-Key: "file:key" }\n`, key: 'CANARY\n' })
    const result = accepted(loadConfig(file, {}))
    expect(result.config.upstreams['api']?.headers).toEqual({ 'X-Key': 'CANARY' })
    expect(showConfig(result.origins, 'attache.yaml')).not.toContain('CANARY')
    expect(refused(`${API}    headers: { X-Key: "file:nowhere" }\n`)).toEqual(['4: upstreams.api.headers.X-Key: file:nowhere does not exist'])
  })
})

describe('precedence', () => {
  const finfo = `${API}    agreement: finfo\n`

  test('is default, then agreement, then file', () => {
    expect(loaded(API).config.upstreams['api']?.waitDefault).toEqual({})
    expect(loaded(finfo).config.upstreams['api']?.waitDefault).toEqual({ 429: 10_000 })
    expect(loaded(`${finfo}    waitDefault: { 429: 90s, 503: 1m }\n`).config.upstreams['api']?.waitDefault).toEqual({ 429: 90_000, 503: 60_000 })
  })

  test('a negative map in the file replaces the agreement’s', () => {
    expect(loaded(finfo).config.upstreams['api']?.cache.negative).toEqual({ 204: 30_000 })
    expect(loaded(`${finfo}    cache: { negative: { 404: 0s } }\n`).config.upstreams['api']?.cache.negative).toEqual({ 404: 0 })
    expect(loaded(`${finfo}    cache: { heuristic: true }\n`).config.upstreams['api']?.cache.negative).toEqual({ 204: 30_000 })
  })

  test('how long what was accepted or announced may take to settle is a minute, or what the agreement or the file says', () => {
    const own = (settle: string): string => `name: own\ntitle: Our agreement\ndefaults: { upstream: { async: { settle: ${settle} } } }\n`
    const agreed = files({ 'attache.yaml': `${API}    agreement: ./own.yaml\n`, 'own.yaml': own('30s') })
    const written = files({ 'attache.yaml': `${API}    agreement: ./own.yaml\n    async: { settle: 2m }\n`, 'own.yaml': own('30s') })
    const settle = (result: LoadResult): number | undefined => accepted(result).config.upstreams['api']?.async.settle
    expect([settle(load(API)), settle(loadConfig(agreed, {})), settle(loadConfig(written, {}))]).toEqual([60_000, 30_000, 120_000])
  })

  test('an agreement fills the credentials that its upstream uses, and no others', () => {
    const key = (name: string) => `  ${name}: { grant: client_credentials, tokenUrl: "http://127.0.0.1:9/t", clientId: a, clientSecret: s }\n`
    const { config } = loaded(
      `${finfo}    credential: [{ match: /a, credential: one }, { credential: two }]\ncredentials:\n${key('one')}${key('two')}${key('three')}  fixed: { grant: static, header: X, value: v }\n`
    )
    expect(config.credentials['one']?.scope).toBe('openid')
    expect(config.credentials['two']?.scope).toBe('openid')
    expect(config.credentials['three']?.scope).toBeUndefined()
    expect(config.credentials['fixed']?.scope).toBeUndefined()
  })

  test('the effective config says of each value where it comes from', () => {
    const { origins } = loaded(`${finfo}    timeout: { connect: 1s }\n`)
    expect(origins.of(['upstreams', 'api', 'timeout', 'connect'])).toEqual({ kind: 'file', line: 5 })
    expect(origins.of(['upstreams', 'api', 'waitDefault', '429'])).toEqual({ kind: 'agreement', name: 'finfo' })
    expect(origins.of(['upstreams', 'api', 'timeout', 'total'])).toEqual({ kind: 'default' })
  })

  test('an agreement of one’s own is found by path, and beside the file by name', () => {
    const own = 'name: own\ntitle: Our agreement\ndefaults: { upstream: { waitDefault: { 429: 5s } } }\n'
    for (const reference of ['./deals/own.yaml', 'own']) {
      const file = files({ 'attache.yaml': `${API}    agreement: ${reference}\n`, 'deals/own.yaml': own, 'agreements/own.yaml': own })
      expect(accepted(loadConfig(file, {})).config.upstreams['api']?.waitDefault).toEqual({ 429: 5000 })
    }
  })

  test('an agreement with mistakes is refused with its own file and lines', () => {
    const broken = 'name: own\ntitle: Our agreement\nbouds: []\nbounds:\n  - { clause: XX-01, key: upstream.retry.attempts, why: because, min: many }\n'
    const file = files({ 'attache.yaml': `${API}    agreement: ./own.yaml\n`, 'own.yaml': broken })
    const result = loadConfig(file, {})
    expect(result.kind === 'refused' && result.findings.map((finding) => [finding.file, finding.line, finding.message])).toEqual([
      [join(dirname(file), 'own.yaml'), 3, 'unknown key; did you mean bounds?']
    ])
  })

  test('a default of an agreement that no config could have is blamed on the agreement, not on the file', () => {
    const own = 'name: own\ntitle: Our agreement\ndefaults: { upstream: { timeout: { respone: 20s, idle: soon } } }\n'
    const file = files({ 'attache.yaml': `${API}    agreement: own\n    timeout: { connct: 1s }\n`, 'agreements/own.yaml': own })
    const result = loadConfig(file, {})
    expect(result.kind === 'refused' && result.findings.map(({ message }) => message)).toEqual([
      'unknown key; did you mean connect?',
      'unknown key; did you mean response? (in the agreement own)',
      'must be a duration such as 250ms, 10s, 5m, 1h or 30d (in the agreement own)'
    ])
  })

  test.each(['../../etc/passwd', './nowhere.yaml', 'finfoo', 'a b', ''])('an agreement %j that is none is refused', (name) => {
    expect(refused(`${API}    agreement: ${JSON.stringify(name)}\n`)).toHaveLength(1)
  })
})

describe('what is not available yet', () => {
  test('is accepted, and named', () => {
    const spend = '    spend: [{ name: sms, match: "POST /v2/*/sms", cost: 1, currency: DKK, budget: { perDay: 100 } }]\n'
    expect(refused(API + spend)).toEqual([])
    expect(warned(API + spend)).toEqual(['upstreams.api.spend: not available yet: upstreams.api.spend is accepted and has no effect'])
  })

  test('is not named where nothing is written', () => {
    expect(warned(`${API}    spend: []\n    lifecycle: []\n`)).toEqual([])
  })
})

describe('warnings', () => {
  test('name credentials nobody uses', () => {
    expect(warned(`credentials:\n  key: { grant: none }\n${API}`)).toEqual(['credentials.key: no upstream uses this credential'])
  })

  test('come with findings too, so that one run shows all', () => {
    expect(warned(`credentials:\n  key: { grant: none }\nlisn: x\n`)).toEqual(['credentials.key: no upstream uses this credential'])
  })
})
