import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { formatFinding } from '../../../src/config/findings.ts'
import { loadConfig } from '../../../src/config/load.ts'
import { files, folder, loaded, refused } from './written.ts'

function matching(finding: string | RegExp): unknown {
  return expect.stringMatching(typeof finding === 'string' ? new RegExp(`^${RegExp.escape(finding)}$`) : finding)
}

/** A config whose second part is what the test is about. */
function upstream(extra: string, baseUrl = 'https://api.example/'): string {
  return `upstreams:\n  api:\n    baseUrl: ${baseUrl}\n${extra.replaceAll(/^/gm, '    ')}`
}

function credential(extra: string): string {
  return `credentials:\n  key:\n${extra.replaceAll(/^/gm, '    ')}\n`
}

describe('the file itself', () => {
  test('that does not exist is named, with the way to name another', () => {
    const result = loadConfig('/nonexistent/attache.yaml', {})
    expect(result.kind === 'refused' && result.findings.map(formatFinding)).toEqual([
      '/nonexistent/attache.yaml: does not exist; name another with --config or ATTACHE_CONFIG'
    ])
  })

  test('that is a folder is refused', () => {
    const path = folder()
    const result = loadConfig(path, {})
    expect(result.kind === 'refused' && result.findings.map(formatFinding)).toEqual([`${path}: is not a file`])
  })

  test.each([
    ['empty', '', 'the file is empty'],
    ['only comments', '# nothing\n', 'the file is empty'],
    ['a list', '- a\n- b\n', 'must be a map of keys'],
    ['a text', 'hello\n', 'must be a map of keys'],
    ['several documents', 'version: 1\n---\nversion: 1\n', '2: several documents in one file, only one is read'],
    ['the same key twice', 'version: 1\nlisten: 127.0.0.1:1\nlisten: 127.0.0.1:2\n', '3: the same key twice'],
    ['a list that never ends', 'allowHosts: [a, b\n', '2: not valid YAML (bad indent)'],
    ['a tab as indentation', 'log:\n\tlevel: info\n', '2: not valid YAML (tab as indent)'],
    ['an unknown tag', 'version: !secret 1\n', '1: not valid YAML (tag resolve failed)'],
    ['nested too deep', `version: ${'['.repeat(40)}${']'.repeat(40)}\n`, 'nested deeper than 32 levels'],
    ['nested absurdly deep', `version: ${'['.repeat(20_000)}${']'.repeat(20_000)}\n`, '1: nested deeper than 32 levels'],
    ['aliases that explode', bomb(), 'aliases expand to far too much, write the values out'],
    ['an alias of nothing', 'log: *nothing\n', 'an alias (*) without its anchor (&) before it'],
    ['a merge of what is no map', 'log: { <<: text }\n', 'a merge key (<<) or alias that stands for no map'],
    ['enormous', `# ${'x'.repeat(1024 * 1024)}\n`, 'larger than 1 MiB, this is no configuration']
  ])('with %s is refused', (_name, yaml, finding) => {
    expect(refused(yaml)).toEqual([finding])
  })

  test('that is no UTF-8 is refused as such', () => {
    const path = files({ 'attache.yaml': '' })
    writeFileSync(path, Buffer.from(`\uFEFF${upstream('')}`, 'utf16le'))
    const result = loadConfig(path, {})
    expect(result.kind === 'refused' && result.findings.map(({ message }) => message)).toEqual(['is not UTF-8 text, save it as that'])
  })

  test('with a key that is no text says nothing beside its findings', () => {
    const warnings = vi.spyOn(process, 'emitWarning')
    onTestFinished(() => warnings.mockRestore())
    expect(refused('? [CANARY]\n: 1\n')).toHaveLength(1)
    expect(warnings).not.toHaveBeenCalled()
  })

  test('of a newer format is refused as a whole, without guesses about its keys', () => {
    expect(refused('version: 2\nlistenOn: everything\n')).toEqual([
      '1: version: config version 2 is newer than this Attache understands (1), install a newer one'
    ])
  })

  test.each(['0', '-1', '1.5', '"1"', 'true'])('of version %s is refused', (version) => {
    expect(refused(`version: ${version}\n`)).toHaveLength(1)
  })

  test('quotes nothing of what stands in it, which may be a secret', () => {
    expect(refused(`credentials:\n  key: [CANARY\n`).join()).not.toContain('CANARY')
    expect(refused(upstream('headers: { X: "CANARY\\n" }\ntimeout: CANARY\nretry: { attempts: CANARY }')).join()).not.toContain('CANARY')
  })
})

describe('unknown keys', () => {
  test.each([
    ['at the top', 'lisen: 127.0.0.1:1\n', '1: lisen: unknown key; did you mean listen?'],
    ['in another case', 'AllowRemote: true\n', '1: AllowRemote: unknown key; did you mean allowRemote?'],
    ['with underscores', credential('grant: none\nmin_use: 0.8'), '4: credentials.key.min_use: unknown key; did you mean minUse?'],
    ['with letters swapped', upstream('timeout: { conenct: 1s }'), '4: upstreams.api.timeout.conenct: unknown key; did you mean connect?'],
    ['one level too high', upstream('attempts: 3'), '4: upstreams.api.attempts: unknown key; did you mean retry.attempts?'],
    ['in a section far away', 'bufferBytes: 1MiB\n', '1: bufferBytes: unknown key here; it belongs to upstreams.NAME.retry'],
    ['unlike any other', 'log: { zzzzzz: 1 }\n', '1: log.zzzzzz: unknown key; known here: level'],
    ['that JavaScript knows', 'constructor: 1\n', /^1: constructor: unknown key/],
    ['that would change every object', '__proto__: { listen: x }\n', /__proto__: unknown key/],
    ['in a rule', upstream('cache: { rules: [{ mach: "GET /a", ttl: 1s }] }'), /upstreams\.api\.cache\.rules\.0\.mach: unknown key; did you mean match\?/]
  ])('%s are refused with what was probably meant', (_name, yaml, finding) => {
    const found = refused(yaml)
    expect(found).toEqual(expect.arrayContaining([matching(finding)]))
    expect(({} as { listen?: string }).listen).toBeUndefined()
  })
})

describe('values', () => {
  test.each([
    ['a duration without unit', upstream('timeout: { connect: 5 }'), '4: upstreams.api.timeout.connect: must be a duration such as 250ms, 10s, 5m, 1h or 30d'],
    [
      'a duration in words',
      upstream('drain: 1s\ntimeout: { connect: soon }'),
      '5: upstreams.api.timeout.connect: must be a duration such as 250ms, 10s, 5m, 1h or 30d'
    ],
    ['a duration of a century', 'drain: 36500d\n', '1: drain: must be a duration such as 250ms, 10s, 5m, 1h or 30d'],
    ['a size without unit', 'limits: { bodyBytes: 1000 }\n', '1: limits.bodyBytes: must be a size such as 64KiB or 6MB'],
    ['a rate without window', upstream('volume: { limits: [100] }'), '4: upstreams.api.volume.limits.0: must be a rate such as 100/1m'],
    ['a rate of nothing', upstream('volume: { limits: [0/1m] }'), '4: upstreams.api.volume.limits.0: must be a rate such as 100/1m'],
    ['a day that does not exist', credential('grant: none\nexpiresAt: 2027-02-30'), '4: credentials.key.expiresAt: must be a date such as 2028-01-31'],
    ['a word that is none of the known', 'log: { level: verbos }\n', /^1: log\.level: must be one of trace, debug, info/],
    [
      'a grant that does not exist',
      credential('grant: client_credential'),
      /^3: credentials\.key\.grant: must be one of .*; did you mean client_credentials\?$/
    ],
    ['a number that is too small', upstream('retry: { attempts: 0 }'), '4: upstreams.api.retry.attempts: must be at least 1'],
    ['a number that is too large', credential('grant: none\nminUse: 1.5'), '4: credentials.key.minUse: must be at most 1'],
    ['a fraction where none makes sense', upstream('retry: { attempts: 2.5 }'), '4: upstreams.api.retry.attempts: must be a whole number (Attempts in all)'],
    ['a number where a text is wanted', credential('grant: none\nclientId: 12345'), /^4: credentials\.key\.clientId: must be a text, in quotes/],
    ['a text where a list is wanted', upstream('retry: { on: "503" }'), /^4: upstreams\.api\.retry\.on: must be a list/],
    ['a list where a section is wanted', upstream('cache: []'), /^4: upstreams\.api\.cache: must be a map of keys/],
    ['a text where a flag is wanted', 'allowRemote: "yes"\n', /^1: allowRemote: must be true or false/],
    ['a credential that is a number', upstream('credential: 5'), /^4: upstreams\.api\.credential: is not allowed here \(Name of a credential/],
    ['a rule without ttl', upstream('cache: { rules: [{ match: "GET /a" }] }'), /^4: upstreams\.api\.cache\.rules\.0\.ttl: is missing/],
    ['a route without slash', upstream('retry: { never: ["POST sms"] }'), /^4: upstreams\.api\.retry\.never\.0: has the wrong form/],
    ['an empty item in a list', 'allowHosts: [localhost, ]\nallowOrigins: [~]\n', /^2: allowOrigins\.0: must be a text/],
    ['an upstream without URL', 'upstreams:\n  api:\n    credential: none\n', '2: upstreams.api.baseUrl: is missing (Where the provider’s API begins)'],
    ['a credential without grant', 'credentials:\n  key: { clientId: a }\n', '2: credentials.key.grant: is missing (How an authorization is obtained)'],
    ['an address without port', 'listen: localhost\n', '1: listen: must be an address such as 127.0.0.1:7600 or unix:/path'],
    ['a port out of range', 'listen: 127.0.0.1:70000\n', '1: listen: must be an address such as 127.0.0.1:7600 or unix:/path'],
    [
      'an end of a lease of another kind',
      upstream('leases: [{ match: GET /secret, expires: later }]'),
      /^4: upstreams\.api\.leases\.0\.expires: has the wrong form/
    ],
    ['an unknown kind of state', 'state: mysql://db\n', /^1: state: has the wrong form/],
    ['a volume key of another kind', upstream('volume: { key: query.org }'), /^4: upstreams\.api\.volume\.key: has the wrong form/]
  ])('%s is refused', (_name, yaml, finding) => {
    expect(refused(yaml)).toEqual(expect.arrayContaining([matching(finding)]))
  })
})

describe('all at once', () => {
  test('everything wrong is listed together, in the order of the file, each with its line', () => {
    const found = refused(
      [
        'version: 1', // 1
        'listn: 127.0.0.1:1', // 2
        'drain: fast', // 3
        'credentials:', // 4
        '  key:', // 5
        '    grant: client_credentials', // 6
        '    tokenUrl: https://auth.example/token', // 7
        '    clientId: ${CLIENT}', // 8
        '    clientSecret: file:/nonexistent/secret', // 9
        'upstreams:', // 10
        '  api:', // 11
        '    baseUrl: http://api.example/', // 12
        '    credential: keys', // 13
        '    agreement: finffo', // 14
        '    retry: { attempts: 99 }' // 15
      ].join('\n')
    )
    expect(found).toEqual([
      '2: listn: unknown key; did you mean listen?',
      '3: drain: must be a duration such as 250ms, 10s, 5m, 1h or 30d',
      '8: credentials.key.clientId: the environment variable CLIENT is not set',
      '9: credentials.key.clientSecret: file:/nonexistent/secret does not exist',
      '12: upstreams.api.baseUrl: must begin with https:, a credential crosses the network (http: is for loopback only)',
      '13: upstreams.api.credential: no credential of that name; did you mean key?',
      '14: upstreams.api.agreement: no agreement of that name; did you mean finfo?',
      '15: upstreams.api.retry.attempts: must be at most 10'
    ])
  })

  test('a mistake in one credential does not make the upstreams that name it wrong as well', () => {
    expect(refused(`${credential('grant: nonsense')}${upstream('credential: key')}\n`)).toEqual([expect.stringContaining('credentials.key.grant')])
  })
})

describe('names', () => {
  test.each(['_attache', '..', 'a/b', 'a b', 'a"}\\nx 1', '-a', 'ø', '%61', `${'a'.repeat(70)}`])('an upstream named %j is refused', (name) => {
    expect(refused(`upstreams:\n  ${JSON.stringify(name).replaceAll('\\\\n', '\\n')}: { baseUrl: "https://api.example/" }\n`)).toEqual([
      expect.stringContaining('a name has letters, digits, - and _, and begins with a letter or digit')
    ])
  })

  test('none is no name for a credential', () => {
    expect(refused('credentials:\n  none: { grant: none }\n')).toEqual(['2: credentials.none: none means no credential, choose another name'])
  })

  test('of credentials that do not exist are refused, in lists too', () => {
    expect(refused(upstream('credential: ky', 'https://api.example/') + '\n' + credential('grant: none'))).toEqual([
      '4: upstreams.api.credential: no credential of that name; did you mean key?'
    ])
    expect(refused(upstream('credential:\n  - { match: "/a/**", credential: none }\n  - { credential: b }'))).toEqual([
      '6: upstreams.api.credential.1.credential: no credential of that name'
    ])
  })
})

describe('addresses', () => {
  test.each(['0.0.0.0:7600', '[::]:7600', '192.168.1.5:7600', 'sidecar.internal:7600'])('%s is refused for callers without a secret', (address) => {
    expect(refused(`listen: "${address}"\n`)).toEqual([expect.stringMatching(/^1: listen: whoever can connect acts with your credentials/)])
  })

  test.each([
    ['allowRemote', 'allowRemote: true\n'],
    ['clients', 'clients: { app: "${APP}" }\n']
  ])('another address is accepted with %s', (_name, permission) => {
    expect(refused(`listen: 0.0.0.0:7600\n${permission}`, { APP: 'secret-of-the-app' })).toEqual([])
  })

  test('an upstream’s own port is held to the same rule', () => {
    expect(refused(upstream('listen: 0.0.0.0:7700'))).toEqual([expect.stringMatching(/^4: upstreams\.api\.listen: whoever can connect/)])
  })

  test('the admin port may be elsewhere, it guards itself', () => {
    expect(refused('admin: { listen: 0.0.0.0:7601 }\n')).toEqual([])
  })

  test.each(['127.0.0.1:1', '127.8.9.1:1', '"[::1]:1"', 'localhost:1', 'LOCALHOST:1', 'unix:/run/a.sock'])('%s is this machine alone', (address) => {
    expect(refused(`listen: ${address}\n`)).toEqual([])
  })

  test('two listeners on one port are refused, whatever they call this machine', () => {
    expect(refused('listen: 127.0.0.1:7600\nadmin: { listen: localhost:7600 }\n')).toEqual(['2: admin.listen: the same port as listen'])
    expect(refused(`listen: unix:/run/a\n${upstream('listen: unix:/run/a')}`)).toEqual(['5: upstreams.api.listen: the same socket as listen'])
  })

  test('port 0 is another port each time', () => {
    expect(refused('listen: 127.0.0.1:0\nadmin: { listen: 127.0.0.1:0 }\n')).toEqual([])
  })

  test.each(['http://localhost', 'localhost:7600', '*', '', 'a/b', 'a b'])('%j is no host name to allow', (host) => {
    expect(refused(`allowHosts: [${JSON.stringify(host)}]\n`)).toEqual([expect.stringMatching(/^1: allowHosts\.0: must be a host name/)])
  })

  test.each(['*', 'null', 'localhost:3000', 'http://localhost:3000/', 'https://*.example'])('%j is no origin to allow', (origin) => {
    expect(refused(`allowOrigins: [${JSON.stringify(origin)}]\n`)).toEqual([expect.stringMatching(/^1: allowOrigins\.0: must be an origin/)])
  })
})

describe('base URLs', () => {
  test.each([
    ['api.example', 'is not a URL'],
    ['ftp://api.example/', 'must begin with https: (or http: on loopback)'],
    ['https://user:CANARY@api.example/', 'must not hold a user or password, use a credential'],
    ['https://api.example/?key=CANARY', 'must not have a query or fragment'],
    ['https://api.example/?', 'must not have a query or fragment'],
    ['"https://api.example/#x"', 'must not have a query or fragment']
  ])('%s is refused', (url, message) => {
    expect(refused(upstream('', url).trimEnd() + '\n')).toEqual([`3: upstreams.api.baseUrl: ${message}`])
  })

  test('http: crosses no network with a credential', () => {
    const secret = { SECRET: 's' }
    const key = credential('grant: static\nheader: X-Key\nvalue: ${SECRET}')
    expect(refused(key + upstream('credential: key', 'http://api.example/'), secret)).toEqual([expect.stringContaining('must begin with https:')])
    expect(refused(key + upstream('credential: [{ match: "/a", credential: key }]', 'http://10.0.0.1/'), secret)).toHaveLength(1)
    expect(refused(key + upstream('credential: key', 'http://127.0.0.1:9/'), secret)).toEqual([])
    expect(refused(key + upstream('credential: key', 'http://localhost.example/'), secret)).toHaveLength(1)
    expect(refused(upstream('credential: none', 'http://api.example/'))).toEqual([])
  })
})

describe('headers', () => {
  test.each([
    ['"X Y": a', 'is no name of a header field'],
    ['"": a', 'is no name of a header field'],
    ['Host: a', 'is set by the connection itself'],
    ['content-length: "5"', 'is set by the connection itself'],
    ['X: "a\\r\\nY: b"', 'is no value of a header field: control characters and space at the ends are not allowed'],
    ['X: " a"', 'is no value of a header field: control characters and space at the ends are not allowed'],
    ['X: "a\\0b"', 'is no value of a header field: control characters and space at the ends are not allowed'],
    ['X: "日"', 'is no value of a header field: control characters and space at the ends are not allowed']
  ])('%s is refused', (header, message) => {
    expect(refused(upstream(`headers: { ${header} }`))).toEqual([expect.stringContaining(message)])
  })

  test('the same field in two spellings is refused', () => {
    expect(refused(upstream('headers: { X-A: a, x-a: b }'))).toEqual(['4: upstreams.api.headers.x-a: the same field twice, case does not matter'])
  })

  test('that look like a secret must not stand in the file, unless they stay on this machine', () => {
    expect(refused(upstream('headers: { X-Api-Key: CANARY }'))).toEqual([expect.stringContaining('looks like a secret')])
    expect(refused(upstream('headers: { X-Api-Key: "${KEY}" }'), { KEY: 'k' })).toEqual([])
    expect(refused(upstream('headers: { X-Api-Key: plain }', 'http://127.0.0.1:9/'))).toEqual([])
  })

  test('that bear a static credential are held to the same rule', () => {
    expect(refused(credential('grant: static\nheader: Host\nvalue: ${KEY}') + upstream('credential: key'), { KEY: 'k' })).toEqual([
      '4: credentials.key.header: is set by the connection itself'
    ])
  })

  test('to tell answers or callers apart must be names', () => {
    expect(refused(upstream('cache: { vary: ["a b"] }\nvolume: { key: "header:a b" }'))).toEqual([
      '4: upstreams.api.cache.vary.0: is no name of a header field',
      '5: upstreams.api.volume.key: is no name of a header field'
    ])
  })

  test('to let pass must be names', () => {
    expect(refused(upstream('pass: { request: ["X-*:"], response: [Set-Cookie] }'))).toEqual([
      expect.stringContaining('upstreams.api.pass.request.0: is no name')
    ])
  })
})

describe('settings that do not go together', () => {
  test.each([
    ['breaker: { cooldown: 10m }', 'upstreams.api.breaker.maxCooldown: must not be shorter than cooldown'],
    ['retry: { backoff: [] }', 'upstreams.api.retry.backoff: needs a step, or attempts: 1'],
    ['cache: { maxBytes: 1KiB }', 'upstreams.api.cache.maxEntryBytes: must not be larger than maxBytes'],
    ['cache: { secondTier: true }', 'upstreams.api.cache.secondTier: needs state: redis://HOST:PORT/DB'],
    ['async: { settle: soon }', 'upstreams.api.async.settle: '],
    ['cache: { negative: { 503: 10s } }', 'upstreams.api.cache.negative.503: must be a status from 200 to 499'],
    ['cache: { negative: { notfound: 10s } }', 'upstreams.api.cache.negative.notfound: must be a status from 200 to 499'],
    ['waitDefault: { 200: 10s }', 'upstreams.api.waitDefault.200: must be a status from 400 to 599'],
    ['contact: "a (b)"', 'upstreams.api.contact: must be plain ASCII'],
    ['lifecycle: [{ match: /a, stage: deprecated, since: 2026-06-01, sunset: 2026-05-01 }]', 'upstreams.api.lifecycle.0.sunset: must not be before since'],
    ['operations: { openapi: ./nowhere.json }', 'upstreams.api.operations.openapi: does not exist']
  ])('%s is refused', (yaml, message) => {
    expect(refused(upstream(yaml))).toEqual([expect.stringContaining(message)])
  })

  test('a second tier without a key that replicas have in common is refused', () => {
    const shared = `state: redis://127.0.0.1:6379/0\n${upstream('cache: { secondTier: true }\n')}`
    expect(refused(shared)).toEqual([expect.stringContaining('upstreams.api.cache.secondTier: needs stateKey')])
    const secret = { SECRET: 'a secret' }
    expect(loaded(`stateKey: \${SECRET}\n${shared}`, secret).config.upstreams['api']?.cache.secondTier).toBe(true)
    const keyed = `${shared.replace('secondTier: true }', 'secondTier: true }\n    credential: key')}\n${credential('grant: static\nheader: X-Api-Key\nvalue: ${SECRET}')}`
    expect(loaded(keyed, secret).config.upstreams['api']?.cache.secondTier).toBe(true)
  })
})

describe('OpenAPI descriptions', () => {
  function described(text: string): string {
    return files({ 'attache.yaml': upstream('operations: { openapi: api.yaml, allow: ["GET /extra"] }'), 'api.yaml': text })
  }

  test('add their operations to those listed', () => {
    const result = loadConfig(described('openapi: 3.1.0\npaths:\n  /v1/articles/{id}:\n    get: {}\n    delete: {}\n'), {})
    expect(result.kind === 'loaded' && result.config.upstreams['api']?.operations.allow).toEqual([
      'GET /extra',
      'GET /v1/articles/{id}',
      'DELETE /v1/articles/{id}'
    ])
  })

  test('may be JSON', () => {
    const result = loadConfig(described('{"swagger":"2.0","paths":{"/a":{"post":{}}}}'), {})
    expect(result.kind === 'loaded' && result.config.upstreams['api']?.operations.allow).toEqual(['GET /extra', 'POST /a'])
  })

  test.each([
    ['no description', 'hello: world\n', 'this is no openapi description'],
    ['no operation', 'openapi: 3.1.0\npaths: {}\n', 'lists no operation'],
    ['no YAML', 'a: [\n', 'is neither JSON nor YAML'],
    ['no JSON', '{"openapi"', 'is neither JSON nor YAML']
  ])('that are %s are refused, because they must not mean that everything is allowed', (_name, text, message) => {
    const result = loadConfig(described(text), {})
    expect(result.kind === 'refused' && result.findings.map((finding) => finding.message)).toEqual([expect.stringContaining(message)])
  })
})

describe('--speed', () => {
  const remote = upstream('')
  test('is refused unless every URL is on loopback, naming each that is not', () => {
    expect(refused(remote, {}, { speed: 60 })).toEqual(['3: upstreams.api.baseUrl: --speed is for rehearsals: every configured URL must be on loopback'])
    const elsewhere = `state: redis://cache.example:6379/0\n${credential('grant: client_credentials\ntokenUrl: https://auth.example/t\nclientId: a\nclientSecret: ${S}')}`
    expect(refused(elsewhere + upstream('credential: key', 'http://127.0.0.1:9/'), { S: 's' }, { speed: 2 }).map((finding) => finding.split(': ')[1])).toEqual([
      'state',
      'credentials.key'
    ])
  })

  test('is accepted on loopback, and any URL at normal speed', () => {
    expect(loaded(upstream('', 'http://127.0.0.1:9/'), {}, { speed: 60 }).config.upstreams['api']).toBeDefined()
    expect(refused(remote, {}, { speed: 1 })).toEqual([])
  })
})

describe('tolerance', () => {
  test('a byte order mark and Windows line ends change nothing', () => {
    const { config } = loaded('\uFEFFversion: 1\r\nlisten: 127.0.0.1:7700\r\nallowHosts:\r\n  - localhost\r\n')
    expect(config.listen).toEqual({ kind: 'tcp', host: '127.0.0.1', port: 7700 })
    expect(config.allowHosts).toEqual(['localhost'])
  })

  test('a section without content counts as not written', () => {
    expect(loaded('credentials:\nupstreams:\nlog:\n').config.log.level).toBe('info')
  })

  test('anchors, aliases and merge keys work', () => {
    const yaml = 'upstreams:\n  a: &base\n    baseUrl: https://a.example/\n    timeout: { connect: 1s }\n  b:\n    <<: *base\n    baseUrl: https://b.example/\n'
    const { config } = loaded(yaml)
    expect(config.upstreams['b']).toMatchObject({ baseUrl: 'https://b.example/', timeout: { connect: 1000 } })
  })

  test('a structure that contains itself is refused', () => {
    expect(refused('upstreams: &a\n  b: *a\n')).toHaveLength(1)
  })
})

function bomb(): string {
  const lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]']
  for (let i = 1; i < 9; i++) lines.push(`a${i}: &a${i} [${Array.from({ length: 10 }, () => `*a${i - 1}`).join(', ')}]`)
  return `${lines.join('\n')}\n`
}

test('a folder that cannot be entered is no crash', () => {
  const path = join(folder(), 'file')
  mkdirSync(join(path, '..'), { recursive: true })
  writeFileSync(path, 'x')
  const result = loadConfig(join(path, 'attache.yaml'), {})
  expect(result.kind === 'refused' && result.findings[0]?.message).toMatch(/^does not exist/)
})

describe('what looks like a reference and is none', () => {
  test.each(['${KEY', '${KEY:-CANARY}', '${}', '${9}', 'a${KEY}b${-}'])('%s is refused, in secrets and elsewhere', (text) => {
    const said = 'has a ${ that begins no reference: write ${NAME}, with letters, digits and _'
    expect(refused(`clients: { app: "${text}" }\n`, { KEY: 'k' })).toEqual([`1: clients.app: ${said}`])
    expect(refused(upstream(`headers: { X-Note: "${text}" }`), { KEY: 'k' })).toEqual([`4: upstreams.api.headers.X-Note: ${said}`])
  })
})

describe('an agreement', () => {
  test.each(['./', '/dev/null', '.'])('at %s is no file, and no crash', (path) => {
    expect(refused(upstream(`agreement: ${path === '.' ? './agreements.yaml/..' : path}`))).toEqual([
      expect.stringMatching(/^4: upstreams\.api\.agreement: (?:is not a file|no such file)$/)
    ])
  })
})

describe('the place of the state', () => {
  test.each([
    ['redis://:CANARY@redis.example:6379/0', 'a password must not stand in the file: write ${NAME} in its place (a literal is for loopback only)'],
    ['redis://127.0.0.1:6379/cache', 'must end in the number of a database, e.g. redis://HOST:PORT/0'],
    ['"redis://a b/"', 'is not a URL, write redis://HOST:PORT/DB']
  ])('%s is refused', (state, message) => {
    expect(refused(`state: ${state}\n`)).toEqual([`1: state: ${message}`])
  })

  test('may have a password of the environment, and any password on loopback', () => {
    expect(refused('state: redis://:${PW}@redis.example:6379/0\n', { PW: 'p' })).toEqual([])
    expect(refused('state: redis://:plain@127.0.0.1:6379/0\n')).toEqual([])
  })
})

describe('no time at all', () => {
  test.each(['connect', 'response', 'idle', 'total'])('is refused as timeout.%s', (key) => {
    expect(refused(upstream(`timeout: { ${key}: 0s }`))).toEqual([`4: upstreams.api.timeout.${key}: must be longer than nothing`])
  })

  test('is refused where callers are waited for', () => {
    expect(refused('limits: { headerTimeout: 0s, bodyTimeout: 0s }\n')).toEqual([
      '1: limits.headerTimeout: must be longer than nothing',
      '1: limits.bodyTimeout: must be longer than nothing'
    ])
  })
})

test.each(['GET /v1?x=1', 'GET /v1#part', 'GET /v1 /x'])('a route %s, which no path can match, is refused', (route) => {
  expect(refused(upstream(`operations: { allow: ["${route}"] }`))).toEqual(['4: upstreams.api.operations.allow.0: has the wrong form (METHOD /template)'])
})

test.each(['constructor', '__proto__', 'toString'])('a key %s is looked for among the known ones only', (key) => {
  expect(refused(`${key}: 1\n`)).toEqual([expect.stringContaining('unknown key; known here: version')])
})
