import { dirname, join } from 'node:path'
import { day, daysLeft, dueAt } from '../tokens/keys/expiry.ts'
import type { KeyRecord, PublicHalf } from '../tokens/keys/key-record.ts'

/** What is shown of a pair just made: where it is, its ids and dates, and all of its public half to send. */
export function announcement(role: 'active' | 'next', folder: string, half: PublicHalf): string {
  const inUse = join(dirname(folder), 'active')
  return `  private key  ${join(folder, 'key.pem')} (0600, it stays there)
  in the config ${role === 'active' ? 'write' : 'nothing changes, it has'}
               key: file:${join(inUse, 'key.pem')}
               certificate: file:${join(inUse, 'certificate.pem')}
  algorithm    ${half.alg}
  kid          ${half.kid}
  x5t#S256     ${half.thumbprint}
  created      ${day(half.notBefore)}
  expires      ${day(half.notAfter)}; its successor is due at the provider by ${day(dueAt(half.notAfter))}

Send the provider what it asks for of these; nothing below is secret.

Public key (JWK):
${JSON.stringify(half.jwk, undefined, 2)}

Public key (PEM):
${half.publicPem}
Certificate, self-signed:
${half.certificatePem}
Certificate request:
${half.requestPem}`
}

/** One line a key. */
export function keyTable(keys: readonly KeyRecord[], now: number): string {
  const rows = keys.map((key) => [
    key.name,
    key.state,
    key.alg ?? '?',
    day(key.createdAt),
    day(key.expiresAt),
    String(daysLeft(key.expiresAt, now)),
    key.state === 'next' && key.activateAt !== undefined ? day(key.activateAt) : '-',
    key.provenAt === undefined ? '-' : day(key.provenAt),
    key.kid,
    key.thumbprint
  ])
  const table = [['name', 'state', 'alg', 'created', 'expires', 'days left', 'activates', 'proven', 'kid', 'x5t#S256'], ...rows]
  const widths = table[0]?.map((_, column) => Math.max(...table.map((row) => row[column]?.length ?? 0))) ?? []
  return table
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd()
    )
    .join('\n')
}
