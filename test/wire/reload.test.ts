import { createServer, type AddressInfo, type Server } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { origin, type Origin } from '../support/origin.ts'
import { exchangeRaw, statusOf } from '../support/raw.ts'
import { testSidecar, type TestSidecar } from '../support/sidecar.ts'

let provider: Origin
let sidecar: TestSidecar
let before: string
beforeEach(async () => {
  provider = await origin()
  before = `upstreams: { old: { baseUrl: "${provider.url}" } }`
  sidecar = await testSidecar(before)
})
afterEach(async () => {
  await sidecar.stop()
  await provider.close()
})

const statusAt = async (url: string): Promise<number> => (await fetch(url)).status
const isOpen = (port: number): Promise<boolean> =>
  fetch(`http://127.0.0.1:${port}/x`).then(
    () => true,
    () => false
  )
const portOf = (server: Server): number => (server.address() as AddressInfo).port
const withPort = (name: string, port: number): string => `upstreams: { ${name}: { baseUrl: "${provider.url}", listen: 127.0.0.1:${port} } }`

async function reloadTo(config: string): Promise<void> {
  sidecar.rewrite(config)
  await sidecar.reload()
}

async function occupied(): Promise<Server> {
  const server = createServer((socket) => socket.destroy())
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return server
}

async function freePorts(): Promise<[number, number]> {
  const both = [await occupied(), await occupied()] as const
  const ports: [number, number] = [portOf(both[0]), portOf(both[1])]
  await Promise.all(both.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}

describe('a reload that asks for a port', () => {
  it('that is taken changes nothing, and is counted as failed', async () => {
    const other = await occupied()
    const [free] = await freePorts()
    await reloadTo(
      `upstreams: { one: { baseUrl: "${provider.url}", listen: 127.0.0.1:${free} }, two: { baseUrl: "${provider.url}", listen: 127.0.0.1:${portOf(other)} } }`
    )
    expect(await statusAt(`${sidecar.dataUrl}/old/x`)).toBe(200)
    expect(await statusAt(`${sidecar.dataUrl}/two/x`)).toBe(404)
    expect(await isOpen(free)).toBe(false)
    expect(await sidecar.metric('attache_config_reloads_total', { result: 'failure' })).toBe(1)
    await new Promise((resolve) => other.close(resolve))
  })

  it('in place of another moves there', async () => {
    const [first, second] = await freePorts()
    await reloadTo(withPort('old', first))
    expect(await statusAt(`http://127.0.0.1:${first}/x`)).toBe(200)
    await reloadTo(withPort('old', second))
    expect(await statusAt(`http://127.0.0.1:${second}/x`)).toBe(200)
    expect(await isOpen(first)).toBe(false)
  })

  it('that another upstream had gets it', async () => {
    const [port] = await freePorts()
    await reloadTo(withPort('old', port))
    await reloadTo(withPort('renamed', port))
    expect(await statusAt(`http://127.0.0.1:${port}/x`)).toBe(200)
    expect(await sidecar.metric('attache_requests_total', { upstream: 'renamed' })).toBe(1)
  })
})

it('a reload tells the admin port too which Host names are accepted', async () => {
  const { port } = new URL(sidecar.adminUrl)
  const ask = async (host: string): Promise<number> =>
    statusOf((await exchangeRaw(sidecar.adminUrl, `GET /api/status HTTP/1.1\r\nHost: ${host}:${port}\r\nConnection: close\r\n\r\n`)).text)
  expect(await ask('sidecar.test')).toBe(421)
  await reloadTo(`allowHosts: [127.0.0.1, sidecar.test]\n${before}`)
  expect(await ask('sidecar.test')).toBe(200)
  expect(await ask('localhost')).toBe(421)
})
