import { describe, expect, test } from 'vitest'
import { roomOf, sources } from './sources.ts'

// docs/architecture.md shows the same table
const FLOORS: Readonly<Record<string, number>> = {
  'main.ts': 5,
  cli: 5,
  'pipeline.ts': 4,
  server: 4,
  config: 3,
  agreements: 3,
  policies: 2,
  transport: 2,
  operations: 2,
  tokens: 1,
  telemetry: 1,
  state: 1,
  'package.ts': 0,
  exchange: 0,
  http: 0
}

const house = sources('src')

describe('floors', () => {
  test('every room stands on a floor', () => {
    expect([...new Set(house.map((source) => roomOf(source.path)))].filter((room) => FLOORS[room] === undefined)).toEqual([])
  })

  test('imports go down, or stay on their floor', () => {
    const upwards = house.flatMap((source) =>
      source.imports
        .filter((used) => used.own && used.target.startsWith('src/') && floorOf(used.target) > floorOf(source.path))
        .map((used) => `${source.path} (floor ${floorOf(source.path)}) imports ${used.target} (floor ${floorOf(used.target)})`)
    )
    expect(upwards).toEqual([])
  })

  test('the house imports nothing from tests or benchmarks, and the sandbox only from the command line', () => {
    const outwards = house.flatMap((source) =>
      source.imports
        .filter((used) => used.own && !used.target.startsWith('src/') && used.target !== 'package.json')
        .filter((used) => !(roomOf(source.path) === 'cli' && used.target.startsWith('sandbox/')))
        .map((used) => `${source.path} imports ${used.target}`)
    )
    expect(outwards).toEqual([])
  })

  test('a policy imports no other policy, save the type of a sibling’s options', () => {
    const sideways = house
      .filter((source) => roomOf(source.path) === 'policies')
      .flatMap((source) =>
        source.imports
          .filter((used) => used.own && roomOf(used.target) === 'policies' && policyOf(used.target) !== policyOf(source.path) && !used.typeOnly)
          .map((used) => `${source.path} imports ${used.target}`)
      )
    expect(sideways).toEqual([])
  })

  test('each third-party package is imported in one room only', () => {
    const rooms = new Map<string, Set<string>>()
    for (const source of house) {
      for (const used of source.imports) {
        // timers, crypto and their like are part of the language here; a database is not
        if (used.own || (used.target.startsWith('node:') && used.target !== 'node:sqlite')) continue
        rooms.set(used.target, (rooms.get(used.target) ?? new Set()).add(roomOf(source.path)))
      }
    }
    expect([...rooms].filter(([, users]) => users.size > 1).map(([name, users]) => `${name}: ${[...users].join(', ')}`)).toEqual([])
  })
})

function floorOf(path: string): number {
  return FLOORS[roomOf(path)] ?? Number.NaN
}

// a policy is a file, or a folder where it needs more than one
function policyOf(path: string): string {
  return (path.split('/')[2] ?? '').replace(/\.ts$/, '')
}
