import { X509Certificate } from 'node:crypto'
import { copyFileSync, renameSync } from 'node:fs'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { certificates, type Certificates } from '../support/certificates.ts'
import { requireReal } from '../support/real.ts'
import { testSidecar } from '../support/sidecar.ts'

const openssl = requireReal('openssl')

type Shown = { readonly path: string; readonly certificate: string | undefined; readonly authorization: string | undefined }

describe.skipIf(openssl === undefined)('a whole sidecar with mutual TLS (RFC 8705)', () => {
  let files: Certificates
  const servers: Server[] = []

  beforeEach(() => {
    files = certificates(openssl ?? '')
  })
  afterEach(async () => {
    for (const server of servers.splice(0)) {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    }
    files.remove()
  })

  /** A TLS server that answers JSON and notes which certificate it was shown; asks for one where `asks`. */
  async function serving(asks: boolean, answer: (path: string) => unknown): Promise<{ url: string; shown: Shown[] }> {
    const shown: Shown[] = []
    const tls = { key: files.read('server.key'), cert: files.read('server.crt'), requestCert: asks, rejectUnauthorized: false }
    const server = createServer(tls, (request, response) => {
      const certificate = (request.socket as TLSSocket).getPeerX509Certificate()?.fingerprint256
      shown.push({ path: request.url ?? '', certificate, authorization: request.headers.authorization })
      response.setHeader('Content-Type', 'application/json')
      request.resume().on('end', () => response.end(JSON.stringify(answer(request.url ?? ''))))
    })
    servers.push(server)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    return { url: `https://localhost:${(server.address() as AddressInfo).port}`, shown }
  }

  const fingerprint = (file: string): string => new X509Certificate(files.read(file)).fingerprint256

  test.each(['tls_client_auth', 'self_signed_tls_client_auth'])(
    'asks for tokens at the alias, shows one certificate everywhere, and both anew when it is replaced: %s',
    { timeout: 30_000 },
    async (clientAuth) => {
      let issued = 0
      const token = await serving(true, () => ({ access_token: `token-${++issued}`, token_type: 'Bearer', expires_in: 3600 }))
      const issuer = await serving(false, () => ({
        issuer: issuer.url,
        token_endpoint: `${issuer.url}/token`,
        mtls_endpoint_aliases: { token_endpoint: `${token.url}/mtls/token` }
      }))
      const api = await serving(true, () => ({}))
      for (const kind of ['key', 'crt']) copyFileSync(files.path(`client.${kind}`), files.path(`used.${kind}`))
      const sidecar = await testSidecar(`
credentials:
  machine:
    grant: client_credentials
    clientAuth: ${clientAuth}
    issuer: "${issuer.url}"
    clientId: client-1
    key: "file:${files.path('used.key')}"
    certificate: "file:${files.path('used.crt')}"
    ca: "file:${files.path('ca.crt')}"
upstreams:
  up: { baseUrl: "${api.url}/", credential: machine, ca: "file:${files.path('ca.crt')}" }
`)
      try {
        const call = async (path: string): Promise<number> => (await fetch(`${sidecar.dataUrl}/up/${path}`)).status
        expect([await call('a'), await call('b')]).toEqual([200, 200])
        expect(token.shown).toEqual([{ path: '/mtls/token', certificate: fingerprint('client.crt'), authorization: undefined }])
        expect(api.shown).toEqual([
          { path: '/a', certificate: fingerprint('client.crt'), authorization: 'Bearer token-1' },
          { path: '/b', certificate: fingerprint('client.crt'), authorization: 'Bearer token-1' }
        ])
        expect(issuer.shown.every(({ path }) => path.startsWith('/.well-known/'))).toBe(true)

        // Certificate and token go together: what was bound to the old one is worth nothing with the new one.
        for (const kind of ['key', 'crt']) {
          copyFileSync(files.path(`other.${kind}`), files.path(`new.${kind}`))
          renameSync(files.path(`new.${kind}`), files.path(`used.${kind}`))
        }
        while (api.shown.at(-1)?.certificate !== fingerprint('other.crt')) expect(await call('c')).toBe(200)
        expect(api.shown.at(-1)?.authorization).toBe('Bearer token-2')
        expect(
          api.shown.filter(({ certificate, authorization }) => (certificate === fingerprint('client.crt')) !== (authorization === 'Bearer token-1'))
        ).toEqual([])
        expect(token.shown.map(({ certificate }) => certificate)).toEqual([fingerprint('client.crt'), fingerprint('other.crt')])
      } finally {
        await sidecar.stop()
      }
    }
  )
})
