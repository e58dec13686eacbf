import { setImmediate as turn } from 'node:timers/promises'
import { getHeapSpaceStatistics } from 'node:v8'
import { smallYoungGeneration } from '../../src/cli/young-generation.ts'

// makes much garbage that lives for a while, before and after growth is allowed; prints the sizes of the young generation
const young = smallYoungGeneration()
const before = await churn()
young.grow()
const after = await churn()
console.log(JSON.stringify({ before: median(before), most: Math.max(...after) }))

async function churn(): Promise<number[]> {
  const kept: unknown[] = []
  const sizes: number[] = []
  for (let round = 0; round < 400; round++) {
    kept.push(Array.from({ length: 4000 }, (_none, at) => ({ at, round: [round] })))
    if (kept.length > 8) kept.shift()
    sizes.push(size())
    await turn()
  }
  return sizes
}

function size(): number {
  return getHeapSpaceStatistics().find((space) => space.space_name === 'new_space')?.space_size ?? Number.NaN
}

// a moment says little: pages still being swept count as well
function median(sizes: number[]): number {
  return sizes.toSorted((a, b) => a - b)[Math.floor(sizes.length / 2)] ?? Number.NaN
}
