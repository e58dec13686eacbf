import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sidecarProcess, type SidecarProcess } from '../support/process.ts'
import { scriptedServer, type Arrived, type ScriptedServer } from '../support/scripted.ts'

/**
 * One kind of attack. `target`, `fields` (behind `GET /up/ID`) or `send` (a whole request) are its variants, `reply` what
 * the provider says; all are bytes, one per character. `{host}` and the like are filled in, `{x*N}` is `x` N times.
 *
 * Outcomes, of which one must be met: a status (`400`, or `502:code`) is a local answer, and for 4xx nothing reached the
 * provider; `F` is exactly one request at the provider and its answer; `cut` an answer visibly broken off; `close` no
 * answer. A `c` behind it: and the connection was closed.
 */
type Case = {
  readonly id: string
  readonly about: string
  readonly source: string
  readonly outcome: readonly string[]
  readonly also?: readonly string[]
  readonly target?: readonly string[]
  readonly fields?: readonly string[]
  readonly send?: readonly string[]
  readonly reply?: readonly string[]
  readonly ending?: 'close' | 'reset'
  /** The status of the provider's answer where it is not 200. */
  readonly status?: string
  readonly head?: boolean
  /** The bytes have no end behind which another request could stand. */
  readonly noProbe?: boolean
  readonly only?: 'open' | 'guarded'
  readonly arrives?: readonly string[]
  readonly absent?: readonly string[]
  readonly arrivesAsSent?: boolean
  readonly arrivesBody?: string
  readonly relays?: readonly string[]
  readonly withheld?: readonly string[]
}

const CASES = JSON.parse(readFileSync(join(import.meta.dirname, 'corpus.json'), 'utf8')) as Case[]
const CANARIES = {
  accessToken: 'CANARY-AT-9f2c',
  refreshToken: 'CANARY-RT-51d0',
  clientSecret: 'CANARY-CS-77aa',
  key: 'CANARY-KEY-e31b',
  caller: 'CANARY-CP-04be'
}
const REQUEST = 'GET /up/{id} HTTP/1.1\r\nHost: {host}\r\n{proof}\r\n'
// nothing here is meant to run out of time: neither provider nor caller of a case falls silent
const SILENCE_MS = 20_000

let folder: string
let provider: ScriptedServer
let tokens: ScriptedServer
let evil: ScriptedServer
const sidecars: Record<string, SidecarProcess> = {}
let script: { bytes: string; ending: 'stay' | 'close' | 'reset' }

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'attache-corpus-'))
  for (const [name, value] of Object.entries(CANARIES)) writeFileSync(join(folder, name), `${value}\n`, { mode: 0o600 })
  evil = await scriptedServer(() => ok('evil'))
  tokens = await scriptedServer(() =>
    ok(JSON.stringify({ access_token: CANARIES.accessToken, refresh_token: CANARIES.refreshToken, token_type: 'Bearer', expires_in: 3600 }))
  )
  provider = await scriptedServer((arrived) => {
    const probe = /probe-[\w.-]+/.exec(arrived.target)?.[0]
    if (probe !== undefined) return ok(probe)
    const authorization = /^authorization: (.*)\r$/im.exec(arrived.head)?.[1] ?? ''
    return { ...script, bytes: script.bytes.replaceAll('{authorization}', authorization) }
  })
  for (const name of ['open', 'guarded']) {
    const file = join(folder, `${name}.yaml`)
    writeFileSync(file, config(name), { mode: 0o600 })
    sidecars[name] = await sidecarProcess(file)
  }
})

afterAll(async () => {
  await Promise.all(Object.values(sidecars).map((sidecar) => sidecar.end('SIGKILL')))
  await Promise.all([provider, tokens, evil].map((server) => server.close()))
  rmSync(folder, { recursive: true, force: true })
})

function config(name: string): string {
  return `
listen: 127.0.0.1:0
admin: { listen: 127.0.0.1:0 }
state: "sqlite:./${name}.db"
log: { level: trace }
allowOrigins: ["http://listed.test"]
${name === 'guarded' ? 'clients: { app: "file:./caller" }' : ''}
credentials:
  machine: { grant: client_credentials, tokenUrl: "http://${tokens.authority}/token", clientId: app, clientSecret: "file:./clientSecret" }
  beside: { grant: client_credentials, tokenUrl: "http://${provider.authority}/base/v1/oauth/token", clientId: app, clientSecret: "file:./clientSecret" }
  key: { grant: static, header: X-Api-Key, value: "file:./key" }
upstreams:
  up:
    baseUrl: http://${provider.authority}/base/v1
    credential: machine
    headers: { X-Tenant: t1 }
    retry: { attempts: 1 }
    breaker: { failures: 100000 }
    timeout: { connect: 10s, response: 15s, idle: 15s, total: 20s }
  beta: { baseUrl: "http://${provider.authority}/v1b", credential: key, retry: { attempts: 1 }, breaker: { failures: 100000 } }
`
}

function ok(body: string): { bytes: string; ending: 'stay' } {
  return { bytes: `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`, ending: 'stay' }
}

type Variant = { readonly id: string; readonly about: Case; readonly send: string; readonly reply: string | undefined; readonly sidecar: string }

function variants(): [string, Variant][] {
  return CASES.flatMap((about) => {
    const fielded = about.fields?.map((fields) => REQUEST.replace('{proof}\r\n', `{proof}${fields}\r\n`))
    const sends = about.send ?? about.target?.map((target) => REQUEST.replace('/up/{id}', target)) ?? fielded ?? [REQUEST]
    const replies = about.reply ?? [undefined]
    return sends.flatMap((send, i) =>
      replies.flatMap((reply, j) =>
        (about.only === undefined ? ['open', 'guarded'] : [about.only]).map((sidecar) => {
          const id = `${about.id}.${sends.length > 1 ? i : j}${sends.length > 1 && replies.length > 1 ? `.${j}` : ''}`
          return [`${id} ${about.about} (${sidecar})`, { id: `${id}-${sidecar}`, about, send, reply, sidecar }] satisfies [string, Variant]
        })
      )
    )
  })
}

describe('whatever bytes a caller or a provider sends', () => {
  it.each(variants())('%s', async (_name, { id, about, send, reply, sidecar: name }) => {
    const sidecar = sidecars[name] as SidecarProcess
    const { host, port } = new URL(sidecar.dataUrl)
    const fill = (text: string): string =>
      text
        .replaceAll(/\{([^{}]{1,80})\*(\d+)\}/g, (_, unit: string, times: string) => unit.repeat(Number(times)))
        .replaceAll('{proof-value}', CANARIES.caller)
        .replaceAll('{proof}', name === 'guarded' ? `Attache-Client: ${CANARIES.caller}\r\n` : '')
        .replaceAll(/\{(host|port|id|evil|admin|origin)\}/g, (_, key: string) => {
          const known: Record<string, string> = { host, port, id, evil: evil.authority, admin: new URL(sidecar.adminUrl).host, origin: provider.authority }
          return known[key] ?? ''
        })
    script = reply === undefined ? ok('answer') : { bytes: fill(reply), ending: about.ending ?? 'stay' }
    const probe = `probe-${id}`
    const bytes = fill(send)
    const behind = about.noProbe === true ? '' : fill(REQUEST).replace(id, probe)
    const arrivedBefore = provider.arrived.length
    const outputBefore = sidecar.output().length

    const exchange = await talk(Number(port), bytes + behind, { isHead: about.head === true, probe })
    const arrived = provider.arrived.slice(arrivedBefore)
    const mine = arrived.filter((one) => !one.target.includes('probe-'))
    const seen = `${JSON.stringify(exchange.text.slice(0, 1500))}\n${mine.map((one) => JSON.stringify(one.text.slice(0, 1500))).join('\n')}`

    // what the case is about
    expect(
      [...about.outcome, ...(about.also ?? [])].filter((outcome) => isMet(outcome, about, exchange, mine)),
      seen
    ).not.toEqual([])
    const first = exchange.answers[0]?.text ?? exchange.text
    for (const pattern of about.relays ?? []) expect(first, seen).toMatch(expression(pattern))
    for (const pattern of about.withheld ?? []) expect(first, seen).not.toMatch(expression(pattern))
    for (const one of mine) {
      for (const pattern of about.arrives ?? []) expect(one.text).toMatch(expression(pattern))
      for (const pattern of about.absent ?? []) expect(one.text).not.toMatch(expression(pattern))
      expect(one).toMatchObject({
        ...(about.arrivesBody === undefined ? {} : { body: about.arrivesBody }),
        ...(about.arrivesAsSent === true ? { target: bytes.split(' ')[1]?.replace('/up', '/base/v1') } : {})
      })
    }

    // I1: credentials only where they belong, each in one line
    for (const one of arrived) {
      expect(one.head.match(/^authorization: .*$/gim)).toEqual([expect.stringMatching(new RegExp(`^authorization: Bearer ${CANARIES.accessToken}$`, 'i'))])
      expect(one.text.replace(CANARIES.accessToken, '')).not.toContain('CANARY')
    }
    expect(evil.arrived).toEqual([])
    expect(provider.garbled).toEqual([])
    expect(tokens.arrived.length).toBeLessThanOrEqual(2)
    // I2: and nowhere else
    const metrics = await (await fetch(`${sidecar.adminUrl}/metrics`)).text()
    const status = await (await fetch(`${sidecar.adminUrl}/api/status`)).text()
    const log = sidecar.output().slice(outputBefore)
    expect([exchange.text, metrics, status, log].filter((text) => text.includes('CANARY'))).toEqual([])
    // I3: whoever comes behind on the same connection gets its own answer or none
    const others = exchange.answers.slice(about.outcome[0] === 'close' ? 0 : 1).map((answer) => answer.body)
    expect(
      others.filter((body) => body !== probe),
      seen
    ).toEqual([])
    const isLeftWaiting = behind !== '' && exchange.answers.length < 2 && !exchange.isClosed
    expect(isLeftWaiting, seen).toBe(false)
    // I4: one line of JSON each, nothing internal, and still alive
    for (const line of log.split('\n').filter((text) => text !== ''))
      expect(JSON.parse(line)).toMatchObject({ level: expect.stringMatching(/^(?:info|debug|warn)$/) })
    for (const { text } of exchange.answers.filter((answer) => answer.isLocal)) expect(text).not.toMatch(/ECONN|127\.0\.0\.1|node:|\.ts:\d|undici|fastify/i)
  })

  it('leaves nothing of a secret in the files of the state, and a bounded number of series', async () => {
    for (const file of readdirSync(folder).filter((name) => name.includes('.db'))) {
      const text = readFileSync(join(folder, file), 'latin1')
      for (const canary of Object.values(CANARIES))
        for (const form of [canary, Buffer.from(canary).toString('base64').slice(0, -2), Buffer.from(canary).toString('hex')]) expect(text).not.toContain(form)
    }
    for (const sidecar of Object.values(sidecars)) {
      const series = (await (await fetch(`${sidecar.adminUrl}/metrics`)).text()).split('\n').filter((line) => line.startsWith('attache_requests_total'))
      expect(series.length).toBeLessThan(100)
    }
  })

  it('ends well afterwards', async () => {
    for (const sidecar of Object.values(sidecars)) expect(await sidecar.end('SIGTERM')).toBe(0)
  })
})

type Answer = { readonly status: number; readonly text: string; readonly body: string; readonly isLocal: boolean }
type Exchange = { readonly text: string; readonly answers: readonly Answer[]; readonly isClosed: boolean; readonly isCut: boolean }

function isMet(outcome: string, about: Case, exchange: Exchange, arrived: readonly Arrived[]): boolean {
  const [, what = '', closes] = /^(.+?)(c?)$/.exec(outcome.replace(/^(cut|close)$/, '$1 ')) ?? []
  const [first] = exchange.answers
  if (closes === 'c' && !exchange.isClosed) return false
  if (what.startsWith('close')) return first === undefined && exchange.isClosed
  if (what.startsWith('cut')) return exchange.isCut && arrived.length === 1
  if (first === undefined) return false
  if (what === 'F') return arrived.length === 1 && !first.isLocal && new RegExp(`^(?:${about.status ?? '200'})$`).test(String(first.status))
  const [status, code] = what.split(':')
  const isPlain = first.status < 500 || [501, 505, 508].includes(first.status)
  return (
    first.isLocal &&
    String(first.status) === status &&
    (code === undefined || first.body.includes(`"urn:attache:problem:${code}"`)) &&
    arrived.length === (isPlain ? 0 : 1)
  )
}

/** Writes all at once; gives what comes back until the probe is answered, the connection closes or all is silent. */
function talk(port: number, bytes: string, options: { isHead: boolean; probe: string }): Promise<Exchange> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(Buffer.from(bytes, 'latin1')))
    let text = ''
    const done = (isClosed: boolean): void => {
      socket.destroy()
      resolve({ text, isClosed, ...answersIn(text, options.isHead, isClosed) })
    }
    socket.setTimeout(SILENCE_MS, () => done(false))
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1')
      if (text.endsWith(options.probe)) done(false)
    })
    socket.on('error', () => done(true))
    socket.on('close', () => done(true))
  })
}

/** Reads answers strictly one behind the other. */
function answersIn(text: string, isHead: boolean, isClosed: boolean): { answers: Answer[]; isCut: boolean } {
  const answers: Answer[] = []
  let rest = text
  while (rest !== '') {
    const end = rest.indexOf('\r\n\r\n')
    const status = Number(/^HTTP\/1\.1 (\d{3}) [\t\x20-\x7e]*\r\n/.exec(rest)?.[1] ?? 0)
    if (end === -1 || status === 0) return { answers: [...answers, { status: 0, text: rest, body: rest, isLocal: false }], isCut: true }
    const head = rest.slice(0, end + 4)
    rest = rest.slice(end + 4)
    if (status < 200) continue
    const length = /^content-length: (\d+)\r$/im.exec(head)?.[1]
    const isBare = (isHead && answers.length === 0) || status === 204 || status === 304
    const read = isBare
      ? { body: '', length: 0 }
      : /^transfer-encoding: chunked\r$/im.test(head)
        ? unchunked(rest)
        : length === undefined
          ? untilEnd(rest, isClosed)
          : rest.length < Number(length)
            ? undefined
            : { body: rest.slice(0, Number(length)), length: Number(length) }
    if (read === undefined) return { answers, isCut: isClosed }
    rest = rest.slice(read.length)
    answers.push({
      status,
      text: head + read.body,
      body: read.body,
      isLocal: /^proxy-status: attache;/im.test(head) && /^content-type: application\/problem\+json\r$/im.test(head)
    })
  }
  return { answers, isCut: false }
}

function untilEnd(rest: string, isClosed: boolean): { body: string; length: number } | undefined {
  return isClosed ? { body: rest, length: rest.length } : undefined
}

function unchunked(rest: string): { body: string; length: number } | undefined {
  let body = ''
  for (let at = 0; ;) {
    const [line, hex] = /^([0-9a-f]+)\r\n/i.exec(rest.slice(at, at + 20)) ?? []
    if (line === undefined || hex === undefined) return undefined
    const size = Number.parseInt(hex, 16)
    const from = at + line.length
    if (rest.length < from + size + 2) return undefined
    body += rest.slice(from, from + size)
    at = from + size + 2
    if (size === 0) return { body, length: at }
  }
}

function expression(pattern: string): RegExp {
  const isFolded = pattern.startsWith('(?i)')
  return new RegExp(isFolded ? pattern.slice(4) : pattern, isFolded ? 'i' : '')
}
