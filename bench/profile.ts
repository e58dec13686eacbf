/** Reads V8 processor profiles: which functions the time itself was spent in. */
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

type Profile = {
  nodes: { id: number; callFrame: { functionName: string; url: string; lineNumber: number } }[]
  samples: number[]
  timeDeltas: number[]
}

/** Starting and warming up is another question: the first samples are left out. */
const SKIP_MICROS = 3_000_000

/**
 * The functions with the most self time, over all profiles in a folder, and below them the same time by room or package.
 * Waiting for work is left out.
 */
export function topOfProfiles(folder: string, functions = 45, rooms = 20): string[] {
  const byFunction = new Map<string, number>()
  const byRoom = new Map<string, number>()
  for (const file of readdirSync(folder).filter((name) => name.endsWith('.cpuprofile'))) {
    const profile: Profile = JSON.parse(readFileSync(join(folder, file), 'utf8'))
    const frames = new Map(profile.nodes.map((node) => [node.id, node.callFrame]))
    let elapsed = 0
    for (const [at, id] of profile.samples.entries()) {
      const micros = profile.timeDeltas[at] ?? 0
      elapsed += micros
      const frame = frames.get(id)
      if (frame === undefined || frame.functionName === '(idle)' || elapsed < SKIP_MICROS) continue
      add(byFunction, nameOf(frame), micros)
      add(byRoom, roomOf(frame), micros)
    }
  }
  return [...top(byFunction, functions), '', ...top(byRoom, rooms)]
}

type Frame = Profile['nodes'][number]['callFrame']

function add(totals: Map<string, number>, name: string, micros: number): void {
  totals.set(name, (totals.get(name) ?? 0) + micros)
}

function top(totals: ReadonlyMap<string, number>, count: number): string[] {
  const all = [...totals.values()].reduce((sum, micros) => sum + micros, 0)
  return [...totals]
    .toSorted(([, a], [, b]) => b - a)
    .slice(0, count)
    .map(([name, micros]) => `${((micros / all) * 100).toFixed(1).padStart(5)} %  ${name}`)
}

function nameOf(frame: Frame): string {
  const place = placeOf(frame)
  return `${frame.functionName || '(anonymous)'}${place === '' ? '' : ` ${place}:${frame.lineNumber + 1}`}`
}

function roomOf(frame: Frame): string {
  const place = placeOf(frame)
  if (place === '') return frame.functionName.startsWith('(') ? frame.functionName : '(native)'
  if (place.startsWith('node:')) return place
  return /^(?:dist\/)?(src\/[^/]+(?:\/[^/]+)?|node_modules\/(?:@[^/]+\/)?[^/]+)/.exec(place)?.[1] ?? place
}

function placeOf(frame: Frame): string {
  return frame.url.replace(/^file:\/\/.*?\/(?=(?:dist\/)?src\/|node_modules\/)/, '')
}
