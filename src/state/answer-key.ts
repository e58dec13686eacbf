import { randomBytes } from 'node:crypto'
import { existsSync, linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Report } from '../exchange/events.ts'
import { sealingKey } from './seal.ts'

const KEY_BYTES = 32

/**
 * The key that seals answers kept in the state (background operations, `Idempotency-Key`); tokens are sealed with keys of
 * their own credentials instead.
 *
 * With a `stateKey` in the config it is derived from that. Otherwise `sqlite:` keeps a random one beside its file (0600),
 * `redis://` derives it from the secrets all replicas know anyway, and `memory:` needs none that outlives the process.
 */
export function answerKey(
  location: string,
  secrets: { readonly stateKey: string | undefined; readonly credentials: readonly string[] },
  report: Report
): Buffer {
  if (secrets.stateKey !== undefined) return sealingKey(secrets.stateKey, 'answers')
  if (location.startsWith('sqlite:')) return keyBeside(location.slice('sqlite:'.length), report)
  if (location.startsWith('redis') && secrets.credentials.length > 0) return sealingKey(secrets.credentials.map(lengthPrefixed).join(''), 'answers')
  return randomBytes(KEY_BYTES)
}

function keyBeside(database: string, report: Report): Buffer {
  const file = `${database}.key`
  try {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 })
    if (!existsSync(file)) place(file)
  } catch (error) {
    if (!isCode(error, 'EEXIST')) return forThisProcess(file, 'cannot be written', report)
  }
  const key = read(file)
  if (key === undefined) return forThisProcess(file, 'cannot be read', report)
  return key.length === KEY_BYTES ? key : forThisProcess(file, 'is not a key', report)
}

function read(file: string): Buffer | undefined {
  try {
    return readFileSync(file)
  } catch (error) {
    if (error instanceof Error) return undefined
    throw error
  }
}

// Of several sidecars starting on one file, one makes the key and the others read it: linking is all or nothing.
function place(file: string): void {
  const draft = `${file}.${process.pid}`
  writeFileSync(draft, randomBytes(KEY_BYTES), { mode: 0o600 })
  try {
    linkSync(draft, file)
  } finally {
    rmSync(draft, { force: true })
  }
}

function forThisProcess(file: string, fault: string, report: Report): Buffer {
  report({ kind: 'warning', about: file, message: `${fault}: answers kept in the state will not be readable after a restart` })
  return randomBytes(KEY_BYTES)
}

function isCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code
}

function lengthPrefixed(text: string): string {
  return `${text.length}:${text}`
}
