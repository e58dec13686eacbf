import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { loadConfig } from '../../../src/config/load.ts'

it('takes references unquoted inside flow maps and lists, where plain YAML would read braces', () => {
  const folder = mkdtempSync(join(tmpdir(), 'attache-config-'))
  const file = join(folder, 'attache.yaml')
  writeFileSync(
    file,
    `credentials: { key: { grant: static, header: X-Api-Key, value: \${API_KEY} } }
upstreams: { up: { baseUrl: "http://127.0.0.1:1/\${PART}/", credential: key, headers: { S4-TenantId: \${TENANT} }, operations: { allow: [ GET /\${PART}/x ] } } }
`
  )
  const loaded = loadConfig(file, { API_KEY: 'k', TENANT: 't-1', PART: 'v1' })
  if (loaded.kind !== 'loaded') throw new Error(JSON.stringify(loaded.findings))
  expect(loaded.config.credentials['key']?.value?.read().reveal()).toBe('k')
  expect(loaded.config.upstreams['up']).toMatchObject({
    baseUrl: 'http://127.0.0.1:1/v1/',
    headers: { 'S4-TenantId': 't-1' },
    operations: { allow: ['GET /v1/x'] }
  })
  rmSync(folder, { recursive: true })
})

it('names a syntax error once, not everything that follows from it', () => {
  const folder = mkdtempSync(join(tmpdir(), 'attache-config-'))
  const file = join(folder, 'attache.yaml')
  writeFileSync(file, `version: 1\nupstreams: { up: { a: }}} }\n${'more: [ {\n'.repeat(20)}`)
  const refused = loadConfig(file, {})
  expect(refused.kind === 'refused' && refused.findings.map(({ line }) => line)).toEqual([2])
  rmSync(folder, { recursive: true })
})

it('warns of a list of credentials that leaves paths without one', () => {
  const folder = mkdtempSync(join(tmpdir(), 'attache-config-'))
  const file = join(folder, 'attache.yaml')
  const warningsFor = (list: string): string[] => {
    writeFileSync(
      file,
      `credentials: { a: { grant: static, header: X-Key, value: \${K} } }\nupstreams: { up: { baseUrl: "http://127.0.0.1:1/", credential: ${list} } }\n`
    )
    return loadConfig(file, { K: 'k' }).warnings.map(({ message }) => message)
  }
  expect(warningsFor('[{ match: "/client/**", credential: a }]')).toEqual([expect.stringContaining('sent without a credential')])
  expect(warningsFor('[{ match: "/client/**", credential: a }, { credential: none }]')).toEqual([])
  rmSync(folder, { recursive: true })
})

it('takes state: memory: as it is read aloud', () => {
  const folder = mkdtempSync(join(tmpdir(), 'attache-config-'))
  const file = join(folder, 'attache.yaml')
  for (const written of ['memory:', 'memory: # lost with the process', '"memory:"']) {
    writeFileSync(file, `version: 1\nstate: ${written}\nupstreams: { up: { baseUrl: "http://127.0.0.1:1/" } }\n`)
    const loaded = loadConfig(file, {})
    expect(loaded.kind === 'loaded' && loaded.config.state, written).toBe('memory:')
  }
  rmSync(folder, { recursive: true })
})
