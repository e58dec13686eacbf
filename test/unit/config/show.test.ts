import { describe, expect, test } from 'vitest'
import { showConfig } from '../../../src/config/show.ts'
import { loaded } from './written.ts'

const YAML = `state: redis://user:CAN@CANARY@127.0.0.1:6379/1
clients: { app: "\${APP}" }
credentials:
  key: { grant: static, header: X-Key, value: CANARY }
upstreams:
  api:
    baseUrl: http://127.0.0.1:\${PORT}/
    agreement: info-subscription
    credential: key
    headers: { S4-TenantId: "\${TENANT}", X-Api-Key: CANARY, Authorization: "Bearer \${APP}" }
`
const ENVIRONMENT = { APP: 'CANARY', PORT: '9', TENANT: '11111111-2222-3333-4444-555555555555' }

describe('the effective config', () => {
  const show = () => showConfig(loaded(YAML, ENVIRONMENT).origins, 'attache.yaml')

  test('gives each value with its source', () => {
    const shown = show()
    expect(shown).toContain('baseUrl: http://127.0.0.1:9/ # attache.yaml:7')
    expect(shown).toContain('"503": 180s # agreement info-subscription')
    expect(shown).toContain('attempts: 3 # default')
    expect(shown).toContain('backoff: [10s, 30s, 60s] # default')
  })

  test('shows references where secrets may stand behind them, and masks what is literal', () => {
    const shown = show()
    expect(shown).toContain('app: ${APP} # attache.yaml:2')
    expect(shown).toContain('value: "[secret]" # attache.yaml:4')
    expect(shown).toContain('S4-TenantId: ${TENANT} # attache.yaml:10')
    expect(shown).toContain('X-Api-Key: "[secret]" # attache.yaml:10')
    expect(shown).toContain('Authorization: Bearer ${APP} # attache.yaml:10')
    expect(shown).toContain('state: redis://user:[secret]@127.0.0.1:6379/1')
    expect(shown).not.toContain('CANARY')
  })

  test('is a config again, with the same meaning', () => {
    const plain = 'upstreams:\n  api: { baseUrl: "http://127.0.0.1:9/", agreement: dinero, volume: { limits: [10/1m] } }\n'
    const first = loaded(plain)
    const again = loaded(showConfig(first.origins, 'x'))
    // relative paths start at the file, which stands elsewhere now
    expect({ ...again.config, state: '' }).toEqual({ ...first.config, state: '' })
  })
})
