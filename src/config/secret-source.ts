import { isUtf8 } from 'node:buffer'
import { closeSync, fstatSync, openSync, readFileSync, statSync, type BigIntStats } from 'node:fs'
import { Secret, type SecretSource } from '../exchange/secret.ts'
import { fileFault } from './file-fault.ts'
import { ConfigError } from './findings.ts'

/** Told once per change when a secret's file has become unusable and its last good value serves on. */
export type Warn = (about: string, message: string) => void

// Nothing that identifies a caller is longer; a path to a device or a log must not fill the memory.
const MOST_BYTES = 1024 * 1024

/** A value that never changes: an environment variable, or a literal where that is allowed. Throws `ConfigError` for unusable ones. */
export function fixedSecret(reference: string, value: string): SecretSource {
  const secret = new Secret(clean(Buffer.from(value, 'utf8')))
  return { reference, read: () => secret }
}

/**
 * A secret in a file, read again whenever the file behind the path is another one or has changed: rewritten, renamed over,
 * or swapped by the symbolic links Kubernetes uses. While it is missing, empty or half-written the last good value
 * serves on and `warn` is told once per change.
 *
 * One line end at the end is trimmed. Private keys, certificates (PEM) and JWKs may have several lines; PKCS#12 and other
 * binary files are given as latin-1. Throws `ConfigError` where there has been no good value yet.
 */
export function fileSecret(reference: string, path: string, warn: Warn): SecretSource {
  let seen = ''
  let good: Secret | undefined

  function read(): Secret {
    const now = signature(path)
    if (good !== undefined && now === seen) return good
    try {
      // The signature is of the very file that is read, so that a swap between two calls is never missed.
      const { bytes, stamp } = readWhole(path)
      const fresh = new Secret(clean(bytes))
      seen = stamp
      good = fresh
    } catch (error) {
      const problem = error instanceof ConfigError ? error : new ConfigError(fileFault(error) ?? 'cannot be read')
      if (good === undefined) throw problem
      // A file that cannot be stat'ed has the signature '', and is looked at again next time.
      seen = now
      warn(reference, `${problem.message}; its last good value serves on`)
    }
    return good
  }
  return { reference, read }
}

/** Whether others than the owner may read the file; false where it does not exist. */
export function readableByOthers(path: string): boolean {
  const stats = statSync(path, { throwIfNoEntry: false })
  return stats !== undefined && (stats.mode & 0o077) !== 0
}

function signature(path: string): string {
  try {
    const stats = statSync(path, { bigint: true, throwIfNoEntry: false })
    return stats === undefined ? 'missing' : stampOf(stats)
  } catch (error) {
    return fileFault(error) ?? 'cannot be read'
  }
}

function readWhole(path: string): { bytes: Buffer; stamp: string } {
  const handle = openSync(path, 'r')
  try {
    const stats = fstatSync(handle, { bigint: true })
    if (!stats.isFile()) throw new ConfigError('is not a file')
    if (stats.size > MOST_BYTES) throw new ConfigError('is larger than 1 MiB, this is no secret')
    return { bytes: readFileSync(handle), stamp: stampOf(stats) }
  } finally {
    closeSync(handle)
  }
}

function stampOf(stats: BigIntStats): string {
  return [stats.dev, stats.ino, stats.size, stats.mtimeNs, stats.ctimeNs].join(':')
}

function clean(bytes: Buffer): string {
  if (bytes.length === 0) throw new ConfigError('is empty')
  if (!isUtf8(bytes)) {
    // DER (PKCS#12) begins with a SEQUENCE and is no text: byte for byte, its line ends are data
    if (bytes[0] === 0x30) return bytes.toString('latin1')
    throw new ConfigError('is neither UTF-8 text nor PKCS#12')
  }
  const text = bytes.toString('utf8')
  if (text.startsWith('\uFEFF')) throw new ConfigError('begins with a byte order mark, save it without')
  const trimmed = text.replace(/\r?\n$/, '')
  if (trimmed.trim() === '') throw new ConfigError('is empty')
  if (trimmed.includes('-----BEGIN ')) {
    if (count(trimmed, '-----BEGIN ') !== count(trimmed, '-----END ')) throw new ConfigError('ends in the middle of a PEM block')
    return trimmed
  }
  if (/^\{\s*"/.test(trimmed)) {
    if (!isJson(trimmed)) throw new ConfigError('begins like JSON and is none')
    return trimmed
  }
  if (/[\r\n]/.test(trimmed)) throw new ConfigError('has several lines, a secret has one')
  return trimmed
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

function count(text: string, part: string): number {
  return text.split(part).length - 1
}

/** Every secret of every credential, in a stable order. */
export function credentialSecrets(credentials: Readonly<Record<string, object>>): SecretSource[] {
  return Object.entries(credentials)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([, credential]) => Object.values(credential).filter(isSecretSource))
}

function isSecretSource(value: unknown): value is SecretSource {
  return typeof value === 'object' && value !== null && 'reference' in value && 'read' in value
}
