/** Reads V8 processor profiles: which functions the time itself was spent in. */
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'

type Profile = {
  nodes: { id: number; callFrame: { functionName: string; url: string; lineNumber: number } }[]
  samples: number[]
  timeDeltas: number[]
}

/** The `count` functions with the most self time, over all profiles in a folder; waiting for work is left out. */
export function topOfProfiles(folder: string, count = 40): string[] {
  const self = new Map<string, number>()
  for (const file of readdirSync(folder).filter((name) => name.endsWith('.cpuprofile'))) {
    const profile: Profile = JSON.parse(readFileSync(join(folder, file), 'utf8'))
    const names = new Map(profile.nodes.map((node) => [node.id, nameOf(node.callFrame)]))
    for (const [at, id] of profile.samples.entries()) {
      const name = names.get(id) ?? '?'
      if (name.startsWith('(idle)')) continue
      self.set(name, (self.get(name) ?? 0) + (profile.timeDeltas[at] ?? 0))
    }
  }
  const total = [...self.values()].reduce((sum, micros) => sum + micros, 0)
  return [...self]
    .toSorted(([, a], [, b]) => b - a)
    .slice(0, count)
    .map(([name, micros]) => `${((micros / total) * 100).toFixed(1).padStart(5)} %  ${name}`)
}

function nameOf(frame: Profile['nodes'][number]['callFrame']): string {
  const place = frame.url.replace(/^file:\/\/.*?\/(?=src\/|node_modules\/)/, '')
  return `${frame.functionName || '(anonymous)'}${place === '' ? '' : ` ${place}:${frame.lineNumber + 1}`}`
}
