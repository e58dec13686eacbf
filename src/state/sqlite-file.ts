import { chmodSync, closeSync, existsSync, mkdirSync, openSync, renameSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import type { Tools } from '../exchange/tools.ts'
import { Unavailable } from './backend.ts'

const SCHEMA_VERSION = 1

const SCHEMA = `
  CREATE TABLE records (key TEXT PRIMARY KEY, value BLOB NOT NULL, fence INTEGER NOT NULL, expires_at REAL);
  CREATE INDEX records_by_expiry ON records (expires_at) WHERE expires_at IS NOT NULL;
  CREATE TABLE counters (key TEXT PRIMARY KEY, value REAL NOT NULL, expires_at REAL NOT NULL);
  CREATE INDEX counters_by_expiry ON counters (expires_at);
  CREATE TABLE locks (key TEXT PRIMARY KEY, holder TEXT NOT NULL, expires_at REAL NOT NULL);
  CREATE TABLE fences (id INTEGER PRIMARY KEY CHECK (id = 1), last INTEGER NOT NULL);
  INSERT INTO fences VALUES (1, 0);
  PRAGMA user_version = ${SCHEMA_VERSION};
`
const TABLES = ['counters', 'fences', 'locks', 'records']

const CHECK_UP_TO_BYTES = 64 * 1024 * 1024
// 1 GiB of 4 KiB pages; beyond it writes fail as on a full disk.
const MAX_PAGES = 262_144

// Primary result codes, https://www.sqlite.org/rescode.html
const BUSY = 5
const LOCKED = 6
const CORRUPT = 11
const FULL = 13
const NOT_A_DATABASE = 26

/** The file is of no use to us as it is. */
class Broken extends Error {}

/**
 * Opens or creates the state file, 0600, in a directory that is made 0700 where it is missing.
 *
 * Sets a broken file aside with a warning and begins a new one. Throws `Unavailable`, or SQLite's error where the file
 * is busy. `thorough` checks a file of any size from end to end.
 */
export function openFile(file: string, thorough: boolean, tools: Tools): DatabaseSync {
  makeOurs(file)
  const before = statSync(file)
  try {
    return openSound(file, thorough || before.size <= CHECK_UP_TO_BYTES)
  } catch (cause) {
    if (!isBroken(cause)) throw cause
    setAside(file, before.ino, cause, tools)
    makeOurs(file)
    return openSound(file, false)
  }
}

/** SQLite gives `-wal` and `-shm` the mode of the file itself, so it has to exist with the right one beforehand. */
function makeOurs(file: string): void {
  try {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 })
    closeSync(openSync(file, 'a', 0o600))
    for (const part of partsOf(file)) if ((statSync(part).mode & 0o077) !== 0) chmodSync(part, 0o600)
  } catch (cause) {
    throw new Unavailable('the state file cannot be written', cause)
  }
}

function partsOf(file: string): string[] {
  return [file, `${file}-wal`, `${file}-shm`].filter((part) => existsSync(part))
}

function openSound(file: string, check: boolean): DatabaseSync {
  const db = new DatabaseSync(file, { timeout: 0 })
  try {
    db.exec(`PRAGMA journal_mode = WAL; PRAGMA journal_size_limit = 4194304; PRAGMA max_page_count = ${MAX_PAGES}`)
    if (check) checkPages(db)
    ensureSchema(db)
    return db
  } catch (cause) {
    db.close()
    throw cause
  }
}

function checkPages(db: DatabaseSync): void {
  const verdict = db.prepare('PRAGMA quick_check(1)').get()?.['quick_check']
  if (verdict !== 'ok') throw new Broken(`quick_check: ${String(verdict)}`)
}

function ensureSchema(db: DatabaseSync): void {
  transaction(db, () => {
    const version = Number(db.prepare('PRAGMA user_version').get()?.['user_version'])
    const tables = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").all()
    if (version === 0 && tables.length === 0) return db.exec(SCHEMA)
    if (version === 0) throw new Unavailable('the state file is the database of another program')
    if (version > SCHEMA_VERSION) throw new Broken('of a later version')
    if (!TABLES.every((name) => tables.some((table) => table['name'] === name))) throw new Broken('tables are missing')
    return undefined
  })
}

/** Runs `work` as one transaction that has the write lock from the start: only its beginning can find the file busy. */
export function transaction<T>(db: DatabaseSync, work: () => T): T {
  db.exec('BEGIN IMMEDIATE')
  try {
    const done = work()
    db.exec('COMMIT')
    return done
  } catch (cause) {
    if (db.isTransaction) db.exec('ROLLBACK')
    throw cause
  }
}

function setAside(file: string, inode: number, cause: unknown, tools: Tools): void {
  // Another process may have found the same and begun a new file already: that one must stay.
  if (statSync(file, { throwIfNoEntry: false })?.ino !== inode) return
  const stamp = new Date(tools.clock.wallNow()).toISOString().replaceAll(/[-:.]/g, '')
  try {
    for (const part of partsOf(file)) renameSync(part, part.replace(file, `${file}.broken-${stamp}`))
  } catch (denied) {
    throw new Unavailable('the state file is broken and cannot be set aside', denied)
  }
  const why = cause instanceof Broken ? cause.message : 'not readable as a database'
  tools.report({ kind: 'warning', about: 'state', message: `the state file was broken (${why}); set aside as *.broken-${stamp}, beginning a new one` })
}

/** Whether somebody else has the file locked just now. */
export function isBusy(error: unknown): boolean {
  const code = primaryCode(error)
  return code === BUSY || code === LOCKED
}

function isBroken(error: unknown): boolean {
  const code = primaryCode(error)
  return error instanceof Broken || code === CORRUPT || code === NOT_A_DATABASE
}

/** SQLite's error as one of ours. */
export function explained(error: unknown): Unavailable {
  if (error instanceof Unavailable) return error
  if (isBroken(error)) return new Unavailable('the state file is broken', error)
  if (primaryCode(error) === FULL) return new Unavailable('the disk of the state file is full', error)
  return new Unavailable('the state file cannot be used', error)
}

function primaryCode(error: unknown): number | undefined {
  return error instanceof Error && 'errcode' in error && typeof error.errcode === 'number' ? error.errcode & 0xff : undefined
}
