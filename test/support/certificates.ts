import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export type Certificates = {
  /** Runs openssl in the folder of the files. */
  openssl(...args: string[]): void
  path(file: string): string
  read(file: string): string
  remove(): void
}

/**
 * A private authority made with OpenSSL, in a folder of its own: `ca.crt`; `server.key` and `server.crt` for localhost;
 * `client.key` and `client.crt` for CN=client-1; `other.key` and `other.crt`, signed by themselves.
 */
export function certificates(binary: string): Certificates {
  const folder = mkdtempSync(join(tmpdir(), 'attache-certificates-'))
  const path = (file: string): string => join(folder, file)

  function openssl(...args: string[]): void {
    execFileSync(binary, args, { cwd: folder, stdio: 'pipe' })
  }
  function issue(name: string, subject: string, ...more: string[]): void {
    const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
    openssl('req', '-x509', ...curve, '-keyout', `${name}.key`, '-out', `${name}.crt`, '-subj', subject, '-days', '2', ...more)
  }
  const byAuthority = ['-CA', 'ca.crt', '-CAkey', 'ca.key']
  issue('ca', '/CN=test authority')
  issue('server', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost', '-addext', 'basicConstraints=critical,CA:FALSE', ...byAuthority)
  issue('client', '/CN=client-1', '-addext', 'basicConstraints=critical,CA:FALSE', ...byAuthority)
  issue('other', '/CN=other')
  return { openssl, path, read: (file) => readFileSync(path(file), 'utf8'), remove: () => rmSync(folder, { recursive: true, force: true }) }
}
