import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { ROOT, findings, sources } from './sources.ts'

const house = sources('src')
const everything = ['src', 'sandbox', 'bench', 'test', '.ci'].flatMap(sources)
// this folder spells out what it forbids
const judged = everything.filter((source) => !source.path.startsWith('test/architecture/'))
const untimed = house.filter((source) => source.path !== 'src/exchange/clock.ts')

const FILE_LINES = 500

describe('time and chance come in through the door', () => {
  test.each([
    ['Date.now', /\bDate\.now\b/],
    ['new Date() without an argument', /\bnew Date\(\s*\)/],
    ['performance.now', /\bperformance\.now\b/],
    ['process.hrtime', /\bprocess\.hrtime\b/],
    ['setTimeout', /(?<![.\w])setTimeout\s*\(/],
    ['setInterval', /(?<![.\w])setInterval\s*\(/],
    ['node:timers (setImmediate does not wait)', /import(?!\s*\{\s*setImmediate\s*\}).*'node:timers/],
    ['AbortSignal.timeout', /\bAbortSignal\.timeout\b/],
    ['Math.random', /\bMath\.random\b/]
  ])('%s stands only in src/exchange/clock.ts', (_name, pattern) => {
    expect(findings(untimed, pattern)).toEqual([])
  })
})

describe('what is never written', () => {
  test.each([
    ['certificates unchecked', /rejectUnauthorized['"]?\s*:\s*false/],
    ['a retry that reply-from makes', /\breply\.from\s*\(/],
    ['signals merged on the hot path (derive them by hand)', /\bAbortSignal\.any\b/],
    [
      'a function written where it is assigned to a property (docs/decisions/16)',
      /\bthis\.#?\w+ \??\??= (?:async )?(?:function\b|\w+ =>|\([^()]*\)(?:: [\w<>| ]+)? =>)/
    ]
  ])('in the house: %s', (_name, pattern) => {
    expect(findings(house, pattern)).toEqual([])
  })

  test.each([
    ['any', /(?::\s*any\b(?!\s*[a-z])|\bas any\b|<any>|\bany\[\])/],
    ['a double assertion', /\bas unknown as\b/],
    ['a silenced compiler', /@ts-(?:ignore|expect-error|nocheck)/],
    ['enum', /^\s*(?:export\s+)?(?:const\s+)?enum\s+\w/],
    ['namespace', /^\s*(?:export\s+)?(?:declare\s+)?namespace\s+\w/],
    ['a parameter property', /constructor\s*\((?:[^)]*,)?\s*(?:public|private|protected|readonly)\s/],
    ['a default export', /^\s*export\s+default\b/],
    ['a re-export of everything', /^\s*export\s+\*\s+from/],
    ['an error swallowed', /catch\s*(?:\([^)]*\))?\s*\{\s*\}|\.catch\(\s*\(\s*\w*\s*\)\s*=>\s*(?:\{\s*\}|undefined|null|void 0)\s*\)/],
    ['a focused or switched-off test', /\b(?:it|test|describe)\.(?:only|todo)\b/]
  ])('anywhere: %s', (_name, pattern) => {
    expect(findings(judged, pattern)).toEqual([])
  })
})

describe('files', () => {
  test('are named in kebab case, and for what they hold', () => {
    const names = everything.map((source) => source.path)
    expect(names.filter((path) => !/^[a-z0-9]+(?:-[a-z0-9]+)*(?:\.test|\.bench|\.d)?\.ts$/.test(basename(path)))).toEqual([])
    expect(names.filter((path) => /(?:^|\/)(?:utils?|helpers?|common|misc|types|index)(?:\/|\.ts$)/.test(path))).toEqual([])
  })

  test('import each other with their extension, as node runs them without a build', () => {
    const bare = everything.flatMap((source) =>
      source.imports.filter((used) => used.own && !/\.(?:ts|json)$/.test(used.specifier)).map((used) => `${source.path}: ${used.specifier}`)
    )
    expect(bare).toEqual([])
  })

  test(`stay below ${FILE_LINES} lines unless a decision note names them`, () => {
    const long = everything.filter((source) => source.text.split('\n').length > FILE_LINES).map((source) => source.path)
    expect(long.filter((path) => !decisions().some((note) => note.includes(path)))).toEqual([])
  })

  test('decision notes stay short', () => {
    expect(decisions().filter((note) => note.trimEnd().split('\n').length > 30)).toEqual([])
  })
})

describe('the package', () => {
  const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'))
  const lock = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8'))

  test('pins exact versions', () => {
    const versions = Object.entries<string>({ ...manifest.dependencies, ...manifest.devDependencies })
    expect(versions.length).toBeGreaterThan(0)
    expect(versions.filter(([, version]) => !/^\d+\.\d+\.\d+(?:-[\w.]+)?$/.test(version))).toEqual([])
  })

  test('has a lock file without registry hosts', () => {
    expect(Object.entries<{ resolved?: string }>(lock.packages).filter(([, entry]) => entry.resolved !== undefined)).toEqual([])
  })

  test('has a lock file that every platform can install from', () => {
    // npm leaves out optional packages that its registry does not carry, and `npm ci` then fails everywhere
    const entries = Object.entries<{ optionalDependencies?: Record<string, string>; version?: string }>(lock.packages)
    const missing = entries.flatMap(([at, entry]) =>
      Object.keys(entry.optionalDependencies ?? {}).filter(
        (name) => lock.packages[`${at}/node_modules/${name}`] === undefined && lock.packages[`node_modules/${name}`] === undefined
      )
    )
    expect(missing).toEqual([])
    expect(entries.filter(([at, entry]) => at !== '' && entry.version === undefined).map(([at]) => at)).toEqual([])
  })

  test('needs install scripts of nobody but node', () => {
    const scripted = Object.entries<{ hasInstallScript?: boolean; optional?: boolean }>(lock.packages)
      .filter(([, entry]) => entry.hasInstallScript === true && entry.optional !== true)
      .map(([at]) => at.slice('node_modules/'.length))
    expect(scripted).toEqual(Object.keys(manifest.allowScripts))
  })
})

function decisions(): string[] {
  const folder = join(ROOT, 'docs/decisions')
  if (!existsSync(folder)) return []
  return readdirSync(folder).map((file) => readFileSync(join(folder, file), 'utf8'))
}
