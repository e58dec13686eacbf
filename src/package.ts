import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** The folder of the package: what is shipped beside the code (`config/`) is found from here, from `src` and `dist` alike. */
export const ROOT = findRoot(import.meta.dirname)

export const VERSION = versionIn(ROOT)

function findRoot(folder: string): string {
  if (existsSync(join(folder, 'package.json'))) return folder
  const above = dirname(folder)
  if (above === folder) throw new Error('package.json of attache not found')
  return findRoot(above)
}

function versionIn(root: string): string {
  const manifest: unknown = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  if (typeof manifest === 'object' && manifest !== null && 'version' in manifest && typeof manifest.version === 'string') return manifest.version
  throw new Error('package.json of attache names no version')
}
