import { X509Certificate } from 'node:crypto'
import type { SecretSource } from '../exchange/secret.ts'
import type { Issue } from './decode.ts'
import type { Config } from './schema.ts'
import type { Path } from './walk.ts'

/** What is wrong with the private certification authorities (`ca:`) of upstreams and credentials; `now` is epoch milliseconds. */
export function authorityIssues(config: Config, now: number): Issue[] {
  const named: [Path, SecretSource | undefined][] = [
    ...Object.entries(config.upstreams).map(([name, { ca }]): [Path, SecretSource | undefined] => [['upstreams', name, 'ca'], ca]),
    ...Object.entries(config.credentials).map(([name, { ca }]): [Path, SecretSource | undefined] => [['credentials', name, 'ca'], ca])
  ]
  return named.flatMap(([path, ca]) => {
    const message = ca === undefined ? undefined : faultOf(ca.read().reveal(), now)
    return message === undefined ? [] : [{ path, message }]
  })
}

function faultOf(text: string, now: number): string | undefined {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  if (blocks.length === 0) return 'has no PEM certificate in it'
  try {
    const certificates = blocks.map((block) => new X509Certificate(block))
    // an old root beside its successor does no harm
    if (certificates.every((certificate) => certificate.validToDate.getTime() <= now)) return 'has only certificates that have ended'
    return undefined
  } catch {
    return 'has a damaged certificate in it'
  }
}
