import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Schema } from '../../../src/config/file-schema.ts'
import { loadConfig, publishedSchema } from '../../../src/config/load.ts'
import { NOT_YET } from '../../../src/config/not-yet.ts'
import { configSchema } from '../../../src/config/schema.ts'
import { makeKeyPair } from '../../../src/tokens/keys/key-pair.ts'
import { ROOT } from '../../../src/package.ts'
import { accepted, files } from './written.ts'

describe('the published schema', () => {
  test('is the one in config/attache.schema.json; node src/config/print-schema.ts > config/attache.schema.json brings it up to date', () => {
    expect(JSON.parse(readFileSync(join(ROOT, 'config/attache.schema.json'), 'utf8'))).toEqual(publishedSchema)
  })

  test('describes every key and closes every section', () => {
    const open: string[] = []
    const undescribed: string[] = []
    visit(publishedSchema, '', (schema, path) => {
      if (schema.description === undefined && path !== '') undescribed.push(path)
      if (schema.properties !== undefined && (schema as { additionalProperties?: boolean }).additionalProperties !== false) open.push(path)
    })
    expect({ open, undescribed }).toEqual({ open: [], undescribed: [] })
  })

  test('requires nothing that has a default', () => {
    const wrong: string[] = []
    visit(publishedSchema, '', (schema, path) => {
      for (const key of schema.required ?? []) if (schema.properties?.[key]?.default !== undefined) wrong.push(`${path}.${key}`)
    })
    expect(wrong).toEqual([])
  })

  test('lets an environment variable stand where a pattern is asked for', () => {
    const strict: string[] = []
    visit(publishedSchema, '', (schema, path) => {
      if (schema.pattern !== undefined && !new RegExp(schema.pattern).test('${NAME}')) strict.push(path)
    })
    expect(strict).toEqual([])
  })
})

test('every key that is not available yet is a key of the schema', () => {
  const known: string[] = []
  visit(JSON.parse(JSON.stringify(configSchema)), '', (_schema, path) => known.push(path.replaceAll(/\[\]/g, '')))
  expect(NOT_YET.map(({ key }) => key).filter((key) => !known.includes(key))).toEqual([])
})

test('every key of the documented format is accepted', async () => {
  const { privatePem, publicHalf } = await makeKeyPair({ alg: 'PS256', name: 'partner', days: 365, now: Date.UTC(2026, 5, 1) })
  const file = files({
    'attache.yaml': EVERYTHING,
    'openapi/finfo.json': '{"openapi":"3.1.0","paths":{"/v1/a":{"get":{}}}}',
    'partner.key.pem': privatePem.reveal(),
    'partner.crt.pem': publicHalf.certificatePem,
    password: 'p'
  })
  const wallNow = () => Date.UTC(2026, 6, 1)
  const { config } = accepted(loadConfig(file, { SECRET: 's', USERNAME: 'u', API_KEY: 'k', TENANT: 't' }, { wallNow }))
  expect(Object.keys(config.upstreams)).toEqual(['finfo', 'other'])
})

test('the example config passes once its variables are set', async () => {
  const { privatePem } = await makeKeyPair({ alg: 'ES256', name: 'partner', days: 365, now: Date.UTC(2026, 5, 1) })
  const file = join(ROOT, 'config/attache.yaml')
  const secrets = files({ 'partner.key.pem': privatePem.reveal() })
  const names = [...readFileSync(file, 'utf8').matchAll(/\$\{([A-Z_]+)\}/g)].map((match) => match[1] ?? '')
  const environment = Object.fromEntries(names.map((name) => [name, valueFor(name)]))
  const { config, warnings } = accepted(loadConfig(file, { ...environment, ATTACHE_SECRETS: dirname(secrets) }, { wallNow: () => Date.UTC(2026, 6, 1) }))
  expect(Object.keys(config.upstreams)).toEqual(['partner', 'dinero', 'finfo', 'connect', 'info'])
  expect(warnings.filter((warning) => !warning.message.startsWith('not available yet'))).toEqual([])
})

test('the example config names every variable that is missing', () => {
  const file = join(ROOT, 'config/attache.yaml')
  const names = new Set([...readFileSync(file, 'utf8').matchAll(/\$\{([A-Z]+_[A-Z_]+|CONTACT)\}/g)].map((match) => match[1] ?? ''))
  const result = loadConfig(file, {})
  const messages = result.kind === 'refused' ? result.findings.map((finding) => finding.message).join() : ''
  expect([...names].filter((name) => !messages.includes(`${name} is not set`))).toEqual([])
})

function valueFor(name: string): string {
  if (name.endsWith('_URL')) return 'https://provider.example/'
  if (name.endsWith('_EXPIRES')) return '2027-06-30'
  return name === 'INFO_TENANT' ? 'e02d3360-8a5f-4115-8ef1-0123456789ab' : 'value'
}

function visit(schema: Schema, path: string, look: (schema: Schema, path: string) => void): void {
  look(schema, path)
  const below = (key: string): string => (path === '' ? key : `${path}.${key}`)
  for (const [key, inner] of Object.entries(schema.properties ?? {})) visit(inner, below(key), look)
  for (const inner of Object.values(schema.patternProperties ?? {})) visit(inner, below('*'), look)
  if (schema.items !== undefined) visit(schema.items, `${path}[]`, look)
  for (const inner of schema.anyOf ?? []) visit(inner, `${path}[]`, look)
}

const EVERYTHING = `
version: 1
listen: 127.0.0.1:7600
admin:
  listen: 127.0.0.1:7601
state: sqlite:./var/attache.db
allowHosts: [localhost, 127.0.0.1, "[::1]"]
allowRemote: false
clients: {}
log: { level: info }
credentials:
  finfo:
    grant: password
    tokenUrl: http://127.0.0.1:7700/finfo/token
    clientId: finfo-api
    clientSecret: \${SECRET}
    clientAuth: client_secret_post
    username: \${USERNAME}
    password: file:password
    scope: openid
    params: {}
    minUse: 0.95
    margin: 30s
    renew: on_demand
  partner:
    grant: client_credentials
    clientAuth: private_key_jwt
    issuer: https://auth.example
    clientId: partner-1
    key: file:partner.key.pem
    certificate: file:partner.crt.pem
    assertion: { alg: PS256, kid: auto, audience: issuer, lifetime: 60s, include: [x5t#S256] }
    expiresAt: 2028-01-31
  key-only: { grant: static, header: X-Api-Key, value: "\${API_KEY}" }
upstreams:
  finfo:
    baseUrl: http://127.0.0.1:7700/finfo/api/
    agreement: finfo
    credential: finfo
    headers: { S4-TenantId: "\${TENANT}" }
    listen: 127.0.0.1:7611
    timeout: { connect: 5s, response: 30s, idle: 30s, total: 150s }
    retry:
      attempts: 3
      backoff: [10s, 30s, 60s]
      jitter: 0.2
      on: [408, 425, 429, 500, 502, 503, 504]
      routes: ["POST /v1/*/invoices/fetch"]
      never: ["POST /v2/*/sms"]
      bufferBytes: 1MiB
      budget: 0.2
    breaker: { failures: 5, cooldown: 60s, maxCooldown: 300s }
    waitDefault: { 429: 60s, 503: 180s }
    cache:
      mode: private
      heuristic: false
      maxBytes: 64MiB
      maxEntryBytes: 1MiB
      negative: { 404: 60s, 410: 60s, 204: 30s }
      staleIfError: 1h
      staleWhileRevalidate: 0s
      vary: [Accept, Accept-Language]
      rules: [{ match: "GET /articles/**", ttl: 10m }]
    volume:
      limits: ["100/1m", "2000/1h"]
      key: path[1]
      concurrency: 32
      onExceed: wait
      queue: 1000
      declared: { perDay: 50000, averageKb: 4 }
    operations:
      openapi: ./openapi/finfo.json
      allow: ["GET /v1/**"]
      unknown: block
      enumeration: { distinct: 500, window: 1h, action: report, useInstead: "GET /changes" }
    lifecycle: [{ match: "GET /v1/**", stage: deprecated, since: 2026-06-01, sunset: 2026-12-01, successor: "/v2" }]
    spend: [{ name: sms, match: "POST /v2/*/sms", cost: 1, currency: DKK, budget: { perDay: 100, perQuarter: 2000 } }]
    async: { poll: { first: 250ms, factor: 1.6, max: 30s, deadline: 5m } }
    pass: { request: [], response: [] }
    waivers: [{ clause: IA-13, reason: "agreed by mail", until: 2027-01-01 }]
  other:
    baseUrl: http://127.0.0.1:7700/other/
    credential: [{ match: "/client/**", credential: partner }, { credential: key-only }]
`
