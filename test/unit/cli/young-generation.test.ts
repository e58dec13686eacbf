import { expect, test } from 'vitest'
import { child } from '../../support/child.ts'

const MIB = 2 ** 20

// a process of its own: the setting is the whole process's
test('the young generation stays at 2 MiB until it may grow, and then below what V8 would take', async () => {
  const line = await child('test/support/young-child.ts', []).line(/before/)
  const { before, most } = JSON.parse(line) as { before: number; most: number }
  expect(before).toBeLessThanOrEqual(2 * MIB)
  expect(most).toBeGreaterThan(8 * MIB)
  expect(most).toBeLessThanOrEqual(32 * MIB)
})
