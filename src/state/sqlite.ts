import type { DatabaseSync } from 'node:sqlite'
import type { Tools } from '../exchange/tools.ts'
import { Unavailable, type Backend } from './backend.ts'
import { nextFence } from './memory.ts'
import { explained, isBusy, openFile, transaction } from './sqlite-file.ts'

// Real milliseconds another process may keep us waiting; less at a probe, since calls are being served from memory then.
const WAIT_MS = { first: 2_000, again: 100 }
const SWEEP_EVERY_WRITES = 256

/**
 * State in one SQLite file (`node:sqlite`), shared by any number of processes on one machine.
 *
 * Write-ahead log; a record is synced to disk before `put` resolves, counters and locks survive a killed process but not
 * a power cut. Waiting for another process's write never blocks the event loop. The file, its `-wal` and its `-shm` are
 * 0600. A file that is broken, or of a later version, is set aside as `FILE.broken-TIMESTAMP` with a warning.
 *
 * `scope` is put before every key. Rejects with `Unavailable` where the file cannot be opened or written.
 */
export async function sqliteBackend(file: string, scope: string, tools: Tools, attempt: 'first' | 'again'): Promise<Backend> {
  const { clock } = tools

  /** Runs `work`, again and again while another process holds the write lock; turns SQLite's errors into ours. */
  async function whenFree<T>(work: () => T, waitMs = WAIT_MS.first): Promise<T> {
    const inClockTime = 1 / clock.realMs(1)
    const until = clock.now() + waitMs * inClockTime
    for (;;) {
      try {
        return work()
      } catch (cause) {
        if (!isBusy(cause)) throw explained(cause)
        if (clock.now() >= until) throw new Unavailable('another process keeps the state file locked', cause)
      }
      await clock.sleep((1 + 4 * tools.random()) * inClockTime)
    }
  }

  const db = await whenFree(() => openFile(file, attempt === 'again', tools), WAIT_MS[attempt])
  return statements(db, scope, tools, whenFree)
}

type WhenFree = <T>(work: () => T) => Promise<T>

function statements(db: DatabaseSync, scope: string, { clock }: Tools, whenFree: WhenFree): Backend {
  const select = db.prepare('SELECT value, expires_at FROM records WHERE key = ? AND (expires_at IS NULL OR expires_at > ?)')
  const upsert = db.prepare(`
    INSERT INTO records VALUES (:key, :value, coalesce(:fence, 0), :expires)
    ON CONFLICT (key) DO UPDATE SET
      value = excluded.value, expires_at = excluded.expires_at,
      fence = CASE WHEN expires_at <= :now THEN excluded.fence ELSE max(fence, excluded.fence) END
    WHERE :fence IS NULL OR fence <= :fence OR expires_at <= :now`)
  const removeRecord = db.prepare('DELETE FROM records WHERE key = ?')
  const removeCounter = db.prepare('DELETE FROM counters WHERE key = ?')
  const list = db.prepare('SELECT key FROM records WHERE substr(key, 1, length(:prefix)) = :prefix AND (expires_at IS NULL OR expires_at > :now)')
  const count = db.prepare(`
    INSERT INTO counters VALUES (:key, :amount, :expires)
    ON CONFLICT (key) DO UPDATE SET
      value = CASE WHEN expires_at <= :now THEN :amount ELSE value + :amount END,
      expires_at = CASE WHEN expires_at <= :now THEN :expires ELSE expires_at END
    RETURNING value`)
  const look = db.prepare('SELECT value FROM counters WHERE key = ? AND expires_at > ?')
  const takeLock = db.prepare(`
    INSERT INTO locks VALUES (:key, :holder, :expires)
    ON CONFLICT (key) DO UPDATE SET holder = :holder, expires_at = :expires WHERE expires_at <= :now`)
  const dropLock = db.prepare('DELETE FROM locks WHERE key = ? AND holder = ?')
  const lastFence = db.prepare('SELECT last FROM fences')
  const raiseFence = db.prepare('UPDATE fences SET last = max(last, ?)')
  const sweeps = ['records', 'counters', 'locks'].map((table) =>
    db.prepare(`DELETE FROM ${table} WHERE rowid IN (SELECT rowid FROM ${table} WHERE expires_at <= ? LIMIT 500)`)
  )
  let writes = 0
  let synchronous = ''

  /** One durable or quick transaction, all or nothing. */
  function write<T>(sync: 'FULL' | 'NORMAL', work: () => T): Promise<T> {
    return whenFree(() => {
      if (synchronous !== sync) db.exec(`PRAGMA synchronous = ${sync}`)
      synchronous = sync
      const done = transaction(db, work)
      sweepNowAndThen()
      return done
    })
  }

  function sweepNowAndThen(): void {
    if (writes++ % SWEEP_EVERY_WRITES !== 0) return
    try {
      for (const sweep of sweeps) sweep.run(clock.now())
    } catch (cause) {
      // What was to be written is written; sweeping can wait for a quieter moment.
      if (!isBusy(cause)) throw cause
    }
  }

  return {
    get(key) {
      return whenFree(() => {
        const row = select.get(scope + key, clock.now())
        if (row === undefined || !(row['value'] instanceof Uint8Array)) return undefined
        const expiresAt = row['expires_at']
        return { value: Buffer.from(row['value']), ttlMs: typeof expiresAt === 'number' ? expiresAt - clock.now() : undefined }
      })
    },
    put(key, value, ttlMs, fence) {
      return write('FULL', () => {
        const now = clock.now()
        if (fence !== undefined) raiseFence.run(fence)
        const expires = ttlMs === undefined || ttlMs === Infinity ? null : now + ttlMs
        return upsert.run({ key: scope + key, value, fence: fence ?? null, expires, now }).changes === 1
      })
    },
    delete(key) {
      return write('FULL', () => {
        removeRecord.run(scope + key)
        removeCounter.run(scope + key)
      })
    },
    keys(prefix) {
      return whenFree(() => list.all({ prefix: scope + prefix, now: clock.now() }).map((row) => String(row['key']).slice(scope.length)))
    },
    add(key, amount, ttlMs) {
      const now = clock.now()
      // adding nothing is looking: no reason to write
      if (amount === 0) return whenFree(() => Number(look.get(scope + key, now)?.['value'] ?? 0))
      return write('NORMAL', () => Number(count.get({ key: scope + key, amount, expires: now + ttlMs, now })?.['value']))
    },
    lock(key, holder, ttlMs, above) {
      return write('NORMAL', () => {
        const now = clock.now()
        if (takeLock.run({ key: scope + key, holder, expires: now + ttlMs, now }).changes === 0) return undefined
        const fence = nextFence(Math.max(above, Number(lastFence.get()?.['last'])), clock.wallNow())
        raiseFence.run(fence)
        return fence
      })
    },
    unlock(key, holder) {
      return write('NORMAL', () => void dropLock.run(scope + key, holder))
    },
    async close() {
      if (db.isOpen) db.close()
    }
  }
}
