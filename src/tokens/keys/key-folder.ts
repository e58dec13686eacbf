/**
 * The keys of one client on disk.
 *
 *     NAME/active -> 2026-06-01-Yt3nGzQ4      what the config points at: NAME/active/key.pem, NAME/active/certificate.pem
 *     NAME/next -> 2027-05-01-p0Xw2b7J        during an overlap: known to the provider, not in use yet
 *     NAME/2026-06-01-Yt3nGzQ4/               key.pem (0600), certificate.pem, request.pem, public.pem, public.jwk.json, about.json
 *     NAME/retired/2025-06-01-…/              kept for the record
 *
 * Links, because renaming one puts a new key and its certificate in place at the same instant, and the running sidecar
 * takes them over without a restart.
 */
import { X509Certificate } from 'node:crypto'
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from 'node:fs'
import { basename, join } from 'node:path'
import { calculateJwkThumbprint } from 'jose'
import { certificateThumbprint } from '../key-material.ts'
import { day } from './expiry.ts'
import type { KeyPair } from './key-pair.ts'
import { KEY_ALGORITHMS, KeyFolderError, type KeyAlgorithm, type KeyRecord, type PublicHalf } from './key-record.ts'

type About = { alg?: KeyAlgorithm; activateAt?: string; provenAt?: string }

const ABOUT = 'about.json'
const RETIRED = 'retired'
const FOLDER = /^\d{4}-\d\d-\d\d-[\w-]{8}$/

/** Puts a new pair in place as the active key, or as the next one with its activation date. Gives its folder. */
export function addKey(parent: string, name: string, pair: KeyPair, role: { state: 'active' } | { state: 'next'; activateAt: number }): string {
  const home = join(parent, name)
  if (role.state === 'active' && existsLink(join(home, 'active')))
    throw new KeyFolderError(`${name} has a key already, add one beside it with attache keys rotate`)
  if (role.state === 'next' && !existsLink(join(home, 'active'))) throw new KeyFolderError(`${name} has no key yet, make one with attache keys new`)
  if (existsLink(join(home, 'next'))) throw new KeyFolderError(`${name} has a next key already, take it into use with attache keys retire`)
  mkdirSync(home, { recursive: true, mode: 0o700 })
  const folder = `${day(pair.publicHalf.notBefore)}-${pair.publicHalf.kid.slice(0, 8)}`
  const about: About = { alg: pair.publicHalf.alg, ...(role.state === 'next' ? { activateAt: new Date(role.activateAt).toISOString() } : {}) }
  // Complete or not at all: only a whole folder gets its name.
  const unfinished = mkdtempSync(join(home, '.new-'))
  try {
    writeSecret(join(unfinished, 'key.pem'), pair.privatePem.reveal())
    writePublic(unfinished, pair.publicHalf)
    writeAbout(unfinished, about)
    renameSync(unfinished, join(home, folder))
  } catch (error) {
    rmSync(unfinished, { recursive: true, force: true })
    throw error
  }
  symlinkSync(folder, join(home, role.state))
  return join(home, folder)
}

/** Every key of one client, or of all of them; active first, then next, then retired, the newest first. */
export async function listKeys(parent: string, name?: string): Promise<KeyRecord[]> {
  const names = name === undefined ? subfolders(parent).filter((candidate) => existsLink(join(parent, candidate, 'active'))) : [name]
  const records: KeyRecord[] = []
  for (const each of names.toSorted()) {
    const home = join(parent, each)
    const own = [...subfolders(home).map((folder) => join(home, folder)), ...subfolders(join(home, RETIRED)).map((folder) => join(home, RETIRED, folder))]
    const found = await Promise.all(own.filter((folder) => FOLDER.test(basename(folder))).map((folder) => recordOf(home, each, folder)))
    records.push(...found.toSorted((one, other) => one.state.localeCompare(other.state) || other.createdAt - one.createdAt))
  }
  return records
}

/** Notes that a token was granted with this key. */
export function markProven(record: KeyRecord, at: number): void {
  writeAbout(record.folder, { ...readAbout(record.folder), provenAt: new Date(at).toISOString() })
}

/**
 * The next key takes over in one step; the one before is moved to `retired/`. Safe to repeat after an interruption.
 * Gives the folder of the retired key.
 */
export function activateNext(parent: string, name: string): string {
  const home = join(parent, name)
  if (!existsLink(join(home, 'next'))) throw new KeyFolderError(`${name} has no next key, make one with attache keys rotate`)
  const old = readlinkSync(join(home, 'active'))
  renameSync(join(home, 'next'), join(home, 'active'))
  mkdirSync(join(home, RETIRED), { recursive: true, mode: 0o700 })
  const retired = join(home, RETIRED, basename(old))
  renameSync(join(home, old), retired)
  return retired
}

/** The private key of a key on disk. */
export function privateKeyFile(key: Pick<KeyRecord, 'folder'>): string {
  return join(key.folder, 'key.pem')
}

async function recordOf(home: string, name: string, folder: string): Promise<KeyRecord> {
  const certificate = readCertificate(folder)
  const about = readAbout(folder)
  return {
    name,
    state: stateOf(home, folder),
    folder,
    kid: await calculateJwkThumbprint(certificate.publicKey.export({ format: 'jwk' })),
    thumbprint: certificateThumbprint(certificate, 'sha256'),
    alg: about.alg,
    createdAt: certificate.validFromDate.getTime(),
    expiresAt: certificate.validToDate.getTime(),
    activateAt: timeOf(about.activateAt),
    provenAt: timeOf(about.provenAt)
  }
}

function stateOf(home: string, folder: string): KeyRecord['state'] {
  for (const state of ['active', 'next'] as const) {
    const link = join(home, state)
    if (existsLink(link) && join(home, readlinkSync(link)) === folder) return state
  }
  return 'retired'
}

function readCertificate(folder: string): X509Certificate {
  try {
    return new X509Certificate(readFileSync(join(folder, 'certificate.pem')))
  } catch (cause) {
    throw new KeyFolderError(`${folder} has no readable certificate.pem`, { cause })
  }
}

function readAbout(folder: string): About {
  const path = join(folder, ABOUT)
  if (!existsSync(path)) return {}
  try {
    const about: unknown = JSON.parse(readFileSync(path, 'utf8'))
    const member = (key: string): string | undefined => {
      const value: unknown = typeof about === 'object' && about !== null ? Reflect.get(about, key) : undefined
      return typeof value === 'string' ? value : undefined
    }
    const [alg, activateAt, provenAt] = [KEY_ALGORITHMS.find((known) => known === member('alg')), member('activateAt'), member('provenAt')]
    return { ...(alg && { alg }), ...(activateAt && { activateAt }), ...(provenAt && { provenAt }) }
  } catch (cause) {
    throw new KeyFolderError(`${path} is damaged, delete it or mend it`, { cause })
  }
}

function writeAbout(folder: string, about: About): void {
  const fresh = join(folder, `.${ABOUT}`)
  writeFileSync(fresh, `${JSON.stringify(about, undefined, 2)}\n`, { mode: 0o600 })
  renameSync(fresh, join(folder, ABOUT))
}

function writePublic(folder: string, half: PublicHalf): void {
  writeFileSync(join(folder, 'certificate.pem'), half.certificatePem)
  writeFileSync(join(folder, 'request.pem'), half.requestPem)
  writeFileSync(join(folder, 'public.pem'), half.publicPem)
  writeFileSync(join(folder, 'public.jwk.json'), `${JSON.stringify(half.jwk, undefined, 2)}\n`)
}

/** 0600 from the first byte on, and on the disk before anybody hears of it. */
function writeSecret(path: string, text: string): void {
  const handle = openSync(path, 'wx', 0o600)
  try {
    writeFileSync(handle, text)
    fsyncSync(handle)
  } finally {
    closeSync(handle)
  }
}

function subfolders(folder: string): string[] {
  if (!existsSync(folder)) return []
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name)
}

function existsLink(path: string): boolean {
  try {
    readlinkSync(path)
    return true
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return false
    throw new KeyFolderError(`${path} is not a link`, { cause: error })
  }
}

function timeOf(text: string | undefined): number | undefined {
  const time = text === undefined ? Number.NaN : Date.parse(text)
  return Number.isNaN(time) ? undefined : time
}
