import { X509Certificate } from 'node:crypto'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { systemClock } from '../../src/exchange/clock.ts'
import { memoryStore } from '../../src/state/memory.ts'
import { openCredentials } from '../../src/tokens/credentials.ts'
import { FetchFailure } from '../../src/tokens/fetch.ts'
import { certificateThumbprint } from '../../src/tokens/key-material.ts'
import type { Authorization, Credentials } from '../../src/tokens/source.ts'
import { tokenFetch } from '../../src/transport/token-fetch.ts'
import { certificates, type Certificates } from '../support/certificates.ts'
import { authorizationServer, type AuthorizationServer } from '../support/oidc.ts'
import { reports } from '../support/policy-call.ts'
import { requireReal } from '../support/real.ts'
import { attempt, credential } from '../support/token-service.ts'

const openssl = requireReal('openssl')
const never = new AbortController().signal

describe.skipIf(openssl === undefined)('mutual TLS', () => {
  let files: Certificates
  let server: AuthorizationServer
  const opened: Credentials[] = []

  beforeAll(async () => {
    files = certificates(openssl ?? '')
    const registered = {
      token_endpoint_auth_method: 'tls_client_auth',
      tls_client_auth_subject_dn: 'CN=client-1',
      tls_client_certificate_bound_access_tokens: true
    }
    // RFC 8705 §2.2: no authority vouches for this one, its certificate itself is registered.
    const own = new X509Certificate(files.read('other.crt'))
    const selfSigned = {
      token_endpoint_auth_method: 'self_signed_tls_client_auth',
      jwks: { keys: [{ ...own.publicKey.export({ format: 'jwk' }), x5c: [own.raw.toString('base64')] }] },
      tls_client_certificate_bound_access_tokens: true
    }
    server = await authorizationServer({
      tls: { key: files.read('server.key'), cert: files.read('server.crt'), ca: files.read('ca.crt') },
      clients: [
        { client_id: 'client-1', ...registered },
        { client_id: 'client-2', ...selfSigned }
      ]
    })
  })
  afterAll(async () => {
    await Promise.all(opened.map((one) => one.close()))
    await server.close()
    files.remove()
  })

  async function authorize(tree: Readonly<Record<string, unknown>>): Promise<Authorization> {
    const clock = systemClock()
    const options = credential({ clientSecret: undefined, clientAuth: 'tls_client_auth', ca: `file:${files.path('ca.crt')}`, ...tree })
    const tools = { clock, random: () => 0, report: reports().report, store: memoryStore({ clock }), version: '1.2.3', tokenFetch: tokenFetch() }
    const credentials = await openCredentials({ a: options }, tools)
    opened.push(credentials)
    const authorization = await credentials.get('a')?.authorize(attempt(), never)
    if (authorization === undefined) throw new Error('not opened')
    return authorization
  }

  test('authenticates the client, and the token is bound to the certificate that every call then shows', async () => {
    const authorization = await authorize({ issuer: server.issuer, key: `file:${files.path('client.key')}`, certificate: `file:${files.path('client.crt')}` })
    const thumbprint = certificateThumbprint(new X509Certificate(files.read('client.crt')), 'sha256')
    expect(authorization.clientCertificate).toMatchObject({ id: thumbprint, cert: expect.stringMatching(/^-----BEGIN CERTIFICATE/) })
    expect(authorization.fields[1]).toMatch(/^Bearer /)
    expect(server.tokenRequests).toEqual(['client_credentials'])
  })

  test('takes key and certificate from one PKCS#12 file', async () => {
    files.openssl('pkcs12', '-export', '-inkey', 'client.key', '-in', 'client.crt', '-out', 'client.p12', '-passout', 'pass:open sesame')
    const authorization = await authorize({ tokenUrl: server.tokenUrl, key: `file:${files.path('client.p12')}`, keyPassphrase: 'open sesame' })
    expect(authorization.clientCertificate?.id).toBe(certificateThumbprint(new X509Certificate(files.read('client.crt')), 'sha256'))
  })

  test('with a certificate of another authority is refused by the service', async () => {
    const refused = authorize({ tokenUrl: server.tokenUrl, key: `file:${files.path('other.key')}`, certificate: `file:${files.path('other.crt')}` })
    await expect(refused).rejects.toMatchObject({ code: 'credential-rejected' })
  })

  describe('with a certificate signed by itself', () => {
    const selfSigned = { clientId: 'client-2', clientAuth: 'self_signed_tls_client_auth' }

    test('authenticates the client that has registered it, and every call shows it too', async () => {
      const authorization = await authorize({
        ...selfSigned,
        issuer: server.issuer,
        key: `file:${files.path('other.key')}`,
        certificate: `file:${files.path('other.crt')}`
      })
      const thumbprint = certificateThumbprint(new X509Certificate(files.read('other.crt')), 'sha256')
      expect(authorization.clientCertificate?.id).toBe(thumbprint)
      expect(authorization.fields[1]).toMatch(/^Bearer /)
    })

    test('is refused with any other, whatever its name and whoever signed it', async () => {
      const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
      files.openssl('req', '-x509', ...curve, '-keyout', 'same.key', '-out', 'same.crt', '-subj', '/CN=other', '-days', '2')
      for (const name of ['same', 'client']) {
        const refused = authorize({
          ...selfSigned,
          tokenUrl: server.tokenUrl,
          key: `file:${files.path(`${name}.key`)}`,
          certificate: `file:${files.path(`${name}.crt`)}`
        })
        await expect(refused).rejects.toMatchObject({ code: 'credential-rejected' })
      }
    })
  })

  test('sends nothing to a service whose certificate nobody we trust has signed', async () => {
    const refused = authorize({
      tokenUrl: server.tokenUrl,
      key: `file:${files.path('client.key')}`,
      certificate: `file:${files.path('client.crt')}`,
      ca: `file:${files.path('other.crt')}`
    })
    await expect(refused).rejects.toMatchObject({ code: 'token-unavailable', message: expect.stringMatching(/TLS certificate was not accepted/) })
  })

  test('nor to one whose certificate is for another name, or which is trusted by default', async () => {
    let bytes = 0
    const impostor = createServer({ key: files.read('server.key'), cert: files.read('server.crt') }, (_request, response) => void response.end())
    impostor.on('secureConnection', (socket) => socket.on('data', (chunk: Buffer) => (bytes += chunk.length)))
    await new Promise<void>((resolve) => impostor.listen(0, '127.0.0.1', resolve))
    const { port } = impostor.address() as AddressInfo
    const send = tokenFetch()
    for (const [url, ca] of [
      [`https://127.0.0.1:${port}/token`, files.read('ca.crt')],
      [`https://localhost:${port}/token`, undefined]
    ] as const) {
      const sending = send(url, { method: 'POST', headers: {}, body: 'client_secret=canary', signal: never, ...(ca === undefined ? {} : { ca }) })
      await expect(sending).rejects.toSatisfy((error) => error instanceof FetchFailure && !error.sent)
    }
    expect(bytes).toBe(0)
    await new Promise((resolve) => impostor.close(resolve))
  })
})
