import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import type { Event } from '../../../src/exchange/events.ts'
import { answerKey } from '../../../src/state/answer-key.ts'

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'attache-key-'))
  onTestFinished(() => rmSync(path, { recursive: true, force: true }))
  return path
}

function keyBeside(database: string): { key: Buffer; warnings: Event[] } {
  const warnings: Event[] = []
  const key = answerKey(`sqlite:${database}`, { stateKey: undefined, credentials: [] }, (event) => void warnings.push(event))
  return { key, warnings }
}

test('the key beside a database is the same at the next start', () => {
  const database = join(folder(), 'a.db')
  const first = keyBeside(database)
  expect(keyBeside(database).key).toEqual(first.key)
  expect(first.warnings).toEqual([])
})

test('where there can be no key it lasts as long as the process, and the start goes on', () => {
  const root = folder()
  writeFileSync(join(root, 'file'), '')
  mkdirSync(join(root, 'b.db.key'))
  for (const database of [join(root, 'file', 'a.db'), join(root, 'b.db')]) {
    const { key, warnings } = keyBeside(database)
    expect(key).toHaveLength(32)
    expect(warnings).toEqual([expect.objectContaining({ kind: 'warning', about: `${database}.key` })])
  }
})
