/**
 * Adds to package-lock.json the optional packages of other platforms that npm leaves out when its registry does not carry
 * them (docs/decisions/08): without an entry, `npm ci` refuses on every platform. Run after `npm install`.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

type Entry = {
  version?: string
  license?: string
  engines?: Record<string, string>
  optionalDependencies?: Record<string, string>
}

const file = join(import.meta.dirname, '../package-lock.json')
const lock: { packages: Record<string, Entry> } = JSON.parse(readFileSync(file, 'utf8'))
const added: Record<string, object> = {}

for (const [at, entry] of Object.entries(lock.packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    if (lock.packages[`${at}/node_modules/${name}`] ?? lock.packages[`node_modules/${name}`]) continue
    added[`node_modules/${name}`] = platformEntry(name, version, entry)
  }
}
lock.packages = Object.fromEntries(Object.entries({ ...lock.packages, ...added }).toSorted(([a], [b]) => a.localeCompare(b, 'en')))
writeFileSync(file, `${JSON.stringify(lock, null, 2)}\n`)
console.log(`${Object.keys(added).length} entries added`)

// the names say what the packages are for: @oxlint/binding-linux-arm64-musl
function platformEntry(name: string, version: string, parent: Entry): object {
  const match = /(android|darwin|freebsd|linux|openharmony|win32)-(arm|arm64|x64|ia32|ppc64|riscv64|s390x)(?:-(\w+))?$/.exec(name)
  if (match === null) throw new Error(`${name} does not say which platform it is for`)
  const [, os, cpu, abi] = match
  return {
    version,
    cpu: [cpu],
    dev: true,
    ...(os === 'linux' && abi !== undefined ? { libc: [abi.startsWith('musl') ? 'musl' : 'glibc'] } : {}),
    ...(parent.license === undefined ? {} : { license: parent.license }),
    optional: true,
    os: [os],
    ...(parent.engines === undefined ? {} : { engines: parent.engines })
  }
}
