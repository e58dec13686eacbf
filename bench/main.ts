/**
 * `npm run bench`: Attache beside its peers, in one run on one machine. Absolute figures mean little; ratios do.
 *
 *   --quick         shorter and fewer rounds
 *   --only NAME     one scenario or one subject (repeatable); the way to those that take minutes or fill the machine
 *   --all           every scenario
 *   --profile       a processor profile of the sidecar (from src/) for each scenario, top lines printed
 *   --source        the sidecar from src/ as it stands; otherwise the package is built first, as users run it
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { Results } from './goals.ts'
import { nginxOrigin } from './peers/nginx.ts'
import { OTHER_CORE, freePort, installed, run, start } from './process.ts'
import { topOfProfiles } from './profile.ts'
import { machine, table, writeResults } from './report.ts'
import { cacheHits, calls, idle, largeAnswers, latency, manyEntries, manyUpstreams, passThrough, randomUrls, type Plan, type Row } from './scenarios.ts'
import { overload, slowReaders, storm, transfer } from './stress.ts'
import { ATTACHE, CACHE_HITS, LARGE_ANSWERS, LATENCY, PASS_THROUGH } from './subjects.ts'

const SCENARIOS: Readonly<Record<string, (plan: Plan) => Promise<Row[]>>> = {
  'pass-through': passThrough,
  'cache hits': cacheHits,
  'many entries': manyEntries,
  'random urls': randomUrls,
  'large answers': (plan) => largeAnswers({ ...plan, rounds: Math.min(plan.rounds, 2) }),
  latency,
  'many upstreams': (plan) => manyUpstreams({ ...plan, rounds: Math.min(plan.rounds, 3) }),
  idle,
  calls,
  storm,
  transfer,
  'slow readers': slowReaders,
  overload
}

/** Not part of a plain run, which is to take about five minutes. */
const ON_REQUEST = ['random urls', 'storm', 'transfer', 'slow readers', 'overload']

const ROOT = join(import.meta.dirname, '..')

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    profile: { type: 'boolean', default: false },
    source: { type: 'boolean', default: false },
    all: { type: 'boolean', default: false },
    only: { type: 'string', multiple: true, default: [] }
  }
})

const subjects = new Set([ATTACHE, ...PASS_THROUGH, ...CACHE_HITS, ...LARGE_ANSWERS, ...LATENCY].map((subject) => subject.name))
const onlyScenarios = values.only.filter((name) => Object.hasOwn(SCENARIOS, name))
const onlySubjects = values.only.filter((name) => subjects.has(name))
const unknown = values.only.filter((name) => !onlyScenarios.includes(name) && !onlySubjects.includes(name))
if (unknown.length > 0) {
  console.error(`nothing is called ${unknown.join(', ')}; scenarios: ${Object.keys(SCENARIOS).join(', ')}; subjects: ${[...subjects].join(', ')}`)
  process.exit(2)
}

const chosen = onlyScenarios.length > 0 ? onlyScenarios : Object.keys(SCENARIOS).filter((name) => values.all || !ON_REQUEST.includes(name))

const startedAt = performance.now()
const folder = mkdtempSync(join(tmpdir(), 'attache-bench-'))
mkdirSync(join(folder, 'logs'))

const originPort = await freePort()
const tokenPort = await freePort()
const originCommand = installed('nginx')
  ? nginxOrigin(join(folder, 'origin'), originPort)
  : [process.execPath, join(import.meta.dirname, 'peers/origin.ts'), String(originPort)]
const origin = await start(originCommand, { core: OTHER_CORE, port: originPort, logFile: join(folder, 'logs/origin.log') })
const tokenService = await start([process.execPath, join(import.meta.dirname, 'peers/token-service.ts'), String(tokenPort)], {
  core: OTHER_CORE,
  port: tokenPort,
  logFile: join(folder, 'logs/token-service.log')
})

// the package is a few bundled files, in which a profile finds no rooms
const fromSource = values.source || values.profile
const main = fromSource ? join(ROOT, 'src/main.ts') : join(ROOT, 'dist/src/main.js')
if (!fromSource) await run([process.execPath, join(ROOT, '.ci/build.ts')], OTHER_CORE)

const results: Record<string, Row[]> = {}
for (const [name, measure] of Object.entries(SCENARIOS)) {
  if (!chosen.includes(name)) continue
  const profiles = join(folder, name.replaceAll(' ', '-'))
  const rows = await measure({
    place: { folder: profiles, origin: `http://127.0.0.1:${originPort}`, tokenService: `http://127.0.0.1:${tokenPort}`, profile: values.profile, main },
    rounds: values.quick ? 2 : 4,
    // profiles leave out the first seconds
    seconds: values.quick && !values.profile ? 1 : 3,
    chosen: (subject) => onlySubjects.length === 0 || onlySubjects.includes(subject),
    progress: (line) => console.error(`${((performance.now() - startedAt) / 1000).toFixed(0).padStart(4)} s  ${name}: ${line}`)
  })
  if (rows.length > 0) results[name] = rows
  if (values.profile && rows.length > 0) console.log([`\n${name}: where the sidecar’s time goes`, ...topOfProfiles(join(profiles, 'profiles'))].join('\n'))
}
await origin.stop()
await tokenService.stop()

report(results)

function report(measured: Results): void {
  const on = machine()
  console.log(`\n${table(measured, on)}\n`)
  if (onlyScenarios.length === 0 && !values.all)
    console.log(`left out, as they take minutes or fill the machine (--all, --only NAME): ${ON_REQUEST.join(', ')}`)
  console.log(`written to ${writeResults(measured, on)}, took ${((performance.now() - startedAt) / 1000).toFixed(0)} s`)
  // logs and profiles are worth keeping where something went wrong or a profile was asked for
  const wrong = Object.values(measured)
    .flat()
    .reduce((sum, row) => sum + row.wrong, 0)
  if (wrong > 0 || values.profile) console.log(`logs${values.profile ? ' and profiles' : ''} are in ${folder}`)
  else rmSync(folder, { recursive: true, force: true })
  process.exitCode = wrong > 0 ? 1 : 0
}
