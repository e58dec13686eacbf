import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Event } from '../../src/exchange/events.ts'
import { openStore } from '../../src/state/open-store.ts'
import type { Store } from '../../src/state/store.ts'
import { child } from '../support/child.ts'
import { testClock, type TestClock } from '../support/clock.ts'
import { storeContract } from '../support/store-contract.ts'

const CHILD = join(import.meta.dirname, '../support/sqlite-child.ts')

let folder: string
let file: string
let clock: TestClock
let events: Event[]

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'attache-sqlite-'))
  file = join(folder, 'var', 'attache.db')
  clock = testClock()
  events = []
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const openFile = (): Promise<Store> => openStore(`sqlite:${file}`, { clock, random: () => 0.5, report: (event) => void events.push(event) })

const modeOf = (path: string): string => (statSync(path).mode & 0o777).toString(8)

storeContract('sqlite', async () => {
  const store = await openFile()
  return { store, pass: (ms) => clock.advance(ms), dispose: () => store.close() }
})

describe('a state file', () => {
  test('keeps records, counters, locks and fences over a restart', async () => {
    const first = await openFile()
    await first.put('a', Buffer.from('1'), { ttlMs: 60_000, fence: 5 })
    await first.add('n', 3, 60_000)
    const lock = await first.lock('l', 60_000)
    await first.close()

    const second = await openFile()
    expect(String(await second.get('a'))).toBe('1')
    expect(await second.put('a', Buffer.from('2'), { fence: 4 })).toBe(false)
    expect(await second.add('n', 1, 60_000)).toBe(4)
    expect(await second.lock('l', 60_000)).toBeUndefined()
    await clock.advance(60_000)
    expect(await second.get('a')).toBeUndefined()
    expect((await second.lock('l', 60_000))?.fence).toBeGreaterThan(lock?.fence ?? NaN)
    await second.close()
    expect(events).toEqual([])
  })

  test('fences grow on even when the clock was set back', async () => {
    const first = await openFile()
    const before = await first.lock('l', 1_000)
    await before?.release()
    await first.close()
    clock.shiftWall(-86_400_000)
    const second = await openFile()
    expect((await second.lock('l', 1_000))?.fence).toBeGreaterThan(before?.fence ?? NaN)
    await second.close()
  })

  test('is 0600 with everything beside it, in a directory of 0700, whatever the umask', async () => {
    const umask = process.umask(0)
    try {
      const store = await openFile()
      await store.put('a', Buffer.from('1'))
      expect(readdirSync(join(folder, 'var')).toSorted()).toEqual(['attache.db', 'attache.db-shm', 'attache.db-wal'])
      for (const name of readdirSync(join(folder, 'var'))) expect(modeOf(join(folder, 'var', name))).toBe('600')
      expect(modeOf(join(folder, 'var'))).toBe('700')
      await store.close()
    } finally {
      process.umask(umask)
    }
  })

  test('that was readable by others is closed to them', async () => {
    mkdirSync(join(folder, 'var'))
    writeFileSync(file, '')
    chmodSync(file, 0o666)
    const store = await openFile()
    expect(modeOf(file)).toBe('600')
    await store.close()
  })

  test('does not grow with what has expired', async () => {
    const store = await openFile()
    for (let n = 0; n < 600; n++) await store.add(`old${n}`, 1, 1_000)
    await clock.advance(2_000)
    for (let n = 0; n < 600; n++) await store.add('new', 1, 60_000)
    await store.close()
    const db = new DatabaseSync(file)
    expect(db.prepare('SELECT count(*) AS left FROM counters').get()).toEqual({ left: 1 })
    db.close()
  })

  test('of a rehearsal at another speed does not mix with the real one', async () => {
    const real = await openFile()
    await real.put('a', Buffer.from('real'))
    const fast = { ...clock, realMs: (ms: number) => ms / 50 }
    const rehearsal = await openStore(`sqlite:${file}`, { clock: fast, random: () => 0.5, report: () => {} })
    expect(await rehearsal.get('a')).toBeUndefined()
    expect(await rehearsal.keys('')).toEqual([])
    await rehearsal.close()
    await real.close()
  })
})

describe('a broken state file', () => {
  async function healthyFile(): Promise<void> {
    const store = await openFile()
    for (let n = 0; n < 50; n++) await store.put(`k${n}`, Buffer.alloc(1_000, n))
    await store.close()
  }

  const damages: Record<string, () => void> = {
    'of random bytes': () => writeFileSync(file, Buffer.alloc(50_000, 'garbage')),
    'with a text in it': () => writeFileSync(file, 'hello\n'),
    'cut in the middle': () => truncateSync(file, Math.floor(statSync(file).size / 2)),
    'with pages overwritten': () => {
      const bytes = readFileSync(file)
      writeFileSync(file, bytes.fill(0xa5, 4_096, 16_384))
    },
    'of a later version': () => {
      const db = new DatabaseSync(file)
      db.exec('PRAGMA user_version = 99')
      db.close()
    },
    'without its tables': () => {
      const db = new DatabaseSync(file)
      db.exec('DROP TABLE locks')
      db.close()
    }
  }

  for (const [damage, inflict] of Object.entries(damages)) {
    test(`${damage} is set aside with a warning, and a new one begun`, async () => {
      await healthyFile()
      inflict()
      const damaged = readFileSync(file)
      const store = await openFile()
      expect(await store.get('k1')).toBeUndefined()
      expect(await store.put('a', Buffer.from('1'))).toBe(true)
      await store.close()

      const aside = readdirSync(join(folder, 'var')).filter((name) => /^attache\.db\.broken-\d{8}T\d{9}Z$/.test(name))
      expect(aside).toHaveLength(1)
      expect(readFileSync(join(folder, 'var', aside[0] ?? '')).length).toBe(damaged.length)
      expect(events).toHaveLength(1)
      expect(events[0]).toMatchObject({ kind: 'warning', about: 'state', message: expect.stringContaining('set aside') })

      const again = await openFile()
      expect(String(await again.get('a'))).toBe('1')
      await again.close()
      expect(events).toHaveLength(1)
    })
  }

  test('that breaks in use does not stop anybody: memory takes over, then a new file', async () => {
    const store = await openFile()
    for (let n = 0; n < 300; n++) await store.put(`k${n}`, Buffer.alloc(4_000, n))
    const db = new DatabaseSync(file)
    db.exec('PRAGMA wal_checkpoint(TRUNCATE)')
    db.close()
    writeFileSync(file, readFileSync(file).fill(0xa5, 4_096))
    for (let n = 0; n < 300; n++) expect((await store.get(`k${n}`))?.length).toBe(4_000)
    await clock.advance(5_000)
    expect(await store.put('after', Buffer.from('1'))).toBe(true)
    await store.close()
    const again = await openFile()
    expect(String(await again.get('after'))).toBe('1')
    await again.close()
  })

  test('database of another program is left alone', async () => {
    mkdirSync(join(folder, 'var'))
    const db = new DatabaseSync(file)
    db.exec('CREATE TABLE customers (name TEXT); INSERT INTO customers VALUES (1)')
    db.close()
    const store = await openFile()
    expect(await store.put('a', Buffer.from('1'))).toBe(true)
    expect(String(await store.get('a'))).toBe('1')
    await store.close()
    expect(readdirSync(join(folder, 'var'))).not.toContainEqual(expect.stringContaining('broken'))
    expect(events).toMatchObject([{ kind: 'warning', message: expect.stringContaining('another program') }])
    const left = new DatabaseSync(file)
    expect(left.prepare('SELECT count(*) AS count FROM customers').get()).toEqual({ count: 1 })
    left.close()
  })
})

describe('where the state file cannot be written', () => {
  test('a directory in its place: works from memory, with one warning', async () => {
    mkdirSync(file, { recursive: true })
    const store = await openFile()
    await store.put('a', Buffer.from('1'))
    expect(String(await store.get('a'))).toBe('1')
    await store.close()
    expect(events).toEqual([{ kind: 'warning', about: 'state', message: 'the state file cannot be written; working from memory until it is back' }])
  })

  test('goes over to the file, with what was written meanwhile, when that becomes possible', async () => {
    mkdirSync(file, { recursive: true })
    const store = await openFile()
    await store.put('a', Buffer.from('1'))
    rmSync(file, { recursive: true })
    await clock.advance(5_000)
    await store.close()
    const again = await openFile()
    expect(String(await again.get('a'))).toBe('1')
    await again.close()
  })

  // Permissions mean nothing to root, so the process under test is given another uid where we are root.
  test('a directory that is read-only: works from memory, with one warning', async () => {
    mkdirSync(join(folder, 'var'))
    chmodSync(folder, 0o755)
    chmodSync(join(folder, 'var'), 0o555)
    const reader = child(CHILD, [file, 'remember', 'a', '0'], process.getuid?.() === 0 ? { uid: 65_534 } : {})
    expect(await reader.ended).toBe(0)
    expect(reader.lines).toContain('before undefined after remembered')
    expect(reader.lines.filter((line) => line.includes('the state file cannot be written'))).toHaveLength(1)
  })
})

describe('several processes on one state file', () => {
  test('lose no count', async () => {
    const children = Array.from({ length: 4 }, () => child(CHILD, [file, 'add', '', '250']))
    expect(await Promise.all(children.map((process) => process.ended))).toEqual([0, 0, 0, 0])
    const store = await openFile()
    expect(await store.add('n', 0, 1_000)).toBe(1_000)
    await store.close()
    expect(children.flatMap(({ lines }) => lines.filter((line) => line.startsWith('event')))).toEqual([])
  })

  test('are kept apart by the lock, with fences that only grow', async () => {
    const children = Array.from({ length: 4 }, () => child(CHILD, [file, 'incrementUnderLock', '', '15']))
    expect(await Promise.all(children.map((process) => process.ended))).toEqual([0, 0, 0, 0])
    const store = await openFile()
    expect(String(await store.get('value'))).toBe('60')
    await store.close()
    const fences = children.flatMap(({ lines }) => lines.filter((line) => line.startsWith('fence ')))
    expect(new Set(fences).size).toBe(60)
    expect(children.flatMap(({ lines }) => lines.filter((line) => /event|fenced out/.test(line)))).toEqual([])
  })

  test('a killed holder’s lock is free when its time is up, not before', async () => {
    const holder = child(CHILD, [file, 'holdLock', '', '0'])
    const fence = Number((await holder.line(/^locked \d/)).slice('locked '.length))
    holder.kill('SIGKILL')
    await holder.ended
    const store = await openStore(`sqlite:${file}`, { clock: { ...clock, now: Date.now }, random: () => 0.5, report: () => {} })
    expect(await store.lock('l', 1_000)).toBeUndefined()
    await store.close()
    const later = await openStore(`sqlite:${file}`, { clock: { ...clock, now: () => Date.now() + 601_000 }, random: () => 0.5, report: () => {} })
    expect((await later.lock('l', 1_000))?.fence).toBeGreaterThan(fence)
    await later.close()
  })

  test('kill -9 at any moment loses nothing that was acknowledged', async () => {
    let next = 0
    for (let turn = 0; turn < 10; turn++) {
      const writer = child(CHILD, [file, 'putUntilKilled', 'k', String(next)])
      await writer.line(new RegExp(`^put ${next + 3 * turn}$`))
      writer.kill('SIGKILL')
      await writer.ended
      const acknowledged = Number(writer.lines.findLast((line) => line.startsWith('put '))?.slice('put '.length))
      const store = await openFile()
      const found = Number(await store.get('k'))
      expect(found).toBeGreaterThanOrEqual(acknowledged)
      expect(found).toBeLessThanOrEqual(acknowledged + 1)
      await store.close()
      next = found + 1
    }
    expect(events).toEqual([])
  }, 120_000)
})
