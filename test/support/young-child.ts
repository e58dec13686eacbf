import { setImmediate as turn } from 'node:timers/promises'
import { getHeapSpaceStatistics } from 'node:v8'
import { smallYoungGeneration } from '../../src/cli/young-generation.ts'

// makes much garbage that lives for a while, before and after growth is allowed; prints the size of the young generation
const young = smallYoungGeneration()
await churn()
const before = size()
young.grow()
await churn()
console.log(JSON.stringify({ before, after: size() }))

async function churn(): Promise<void> {
  const kept: unknown[] = []
  for (let round = 0; round < 400; round++) {
    kept.push(Array.from({ length: 4000 }, (_none, at) => ({ at, round: [round] })))
    if (kept.length > 8) kept.shift()
    await turn()
  }
}

function size(): number {
  return getHeapSpaceStatistics().find((space) => space.space_name === 'new_space')?.space_size ?? Number.NaN
}
