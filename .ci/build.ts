/**
 * Builds the package into `dist/`, laid out like the checkout (`dist/src`, `dist/sandbox`, `dist/config`), so that paths
 * between files are the same in both and nothing in `src` needs to know which of the two it runs from.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const root = join(import.meta.dirname, '..')
const dist = join(root, 'dist')

rmSync(dist, { recursive: true, force: true })
// tsc is a script of its own; running it through this very node keeps the pinned version
const compiled = spawnSync(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), '-p', join(root, 'tsconfig.build.json')], {
  stdio: 'inherit',
  cwd: root
})
if (compiled.status !== 0) process.exit(compiled.status ?? 1)

// what is not TypeScript: pages, the shipped agreements, the schema editors complete with
for (const folder of ['src', 'sandbox', 'config']) {
  cpSync(join(root, folder), join(dist, folder), { recursive: true, filter: (path) => !path.endsWith('.ts') })
}
cpSync(join(root, 'package.json'), join(dist, 'package.json'))

const main = join(dist, 'src/main.js')
const text = readFileSync(main, 'utf8')
if (!text.startsWith('#!')) writeFileSync(main, `#!/usr/bin/env node\n${text}`)
chmodSync(main, 0o755)
