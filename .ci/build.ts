/**
 * Builds the package into `dist/`: the command and what it imports in a few files without comments, one for each part that
 * is loaded on its own (docs/decisions/15). Beside them what is not code, laid out like the checkout, so that nothing in
 * `src` needs to know which of the two it runs from. Another folder than `dist/` can be named.
 */
import { chmodSync, cpSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { rolldown, type Plugin } from 'rolldown'

const root = join(import.meta.dirname, '..')
const dist = process.argv[2] ?? join(root, 'dist')
const SLIM_UNDICI = join(root, 'undici-dispatchers.js')

// Undici's front page loads fetch, websockets, caches and mocks. Whoever asks it for more than this fails at the build
// (our own imports) or, in reply-from, at a branch that the `handler` option never takes.
const SLIM = `
  import api from 'undici/lib/api/index.js'
  import Dispatcher from 'undici/lib/dispatcher/dispatcher.js'
  Object.assign(Dispatcher.prototype, api)
  export { Dispatcher }
  export { default as Agent } from 'undici/lib/dispatcher/agent.js'
  export { default as BalancedPool } from 'undici/lib/dispatcher/balanced-pool.js'
  export { default as Client } from 'undici/lib/dispatcher/client.js'
  export { default as Pool } from 'undici/lib/dispatcher/pool.js'
  export { default as buildConnector } from 'undici/lib/core/connect.js'
  export { default as errors } from 'undici/lib/core/errors.js'
`
const slimUndici: Plugin = {
  name: 'slim-undici',
  resolveId: (name) => (name === 'undici' ? SLIM_UNDICI : undefined),
  load: (id) => (id === SLIM_UNDICI ? SLIM : undefined)
}

// What Fastify and http-proxy ask for and never use here: compilers of schemas (server/schemaless.ts), the websockets of
// http-proxy, which are off, and requests without a network.
const UNUSED = ['@fastify/ajv-compiler', '@fastify/fast-json-stringify-compiler', 'ws', 'light-my-request']
const LEFT_OUT = join(root, 'left-out.cjs')
const leftOut: Plugin = {
  name: 'left-out',
  resolveId: (name) => (UNUSED.includes(name) ? LEFT_OUT : undefined),
  load: (id) => (id === LEFT_OUT ? "module.exports = function leftOut() { throw new Error('left out of the package: .ci/build.ts') }" : undefined)
}

rmSync(dist, { recursive: true, force: true })
const bundle = await rolldown({
  cwd: root,
  input: { main: 'src/main.ts' },
  platform: 'node',
  plugins: [slimUndici, leftOut],
  onLog(level, log) {
    if (level === 'warn') throw new Error(log.message)
  }
})
const { output } = await bundle.write({
  dir: join(dist, 'src'),
  entryFileNames: '[name].js',
  chunkFileNames: '[name]-[hash].js',
  banner: (chunk) => (chunk.isEntry ? '#!/usr/bin/env node' : ''),
  comments: { legal: false, annotation: false, jsdoc: false },
  // names stay: frames in a log have to mean something, and policies are known by theirs
  minify: { mangle: false, compress: false, codegen: { removeWhitespace: true } }
})
await bundle.close()

// what is not TypeScript: pages, the shipped agreements, the schema editors complete with
for (const folder of ['src', 'sandbox', 'config']) {
  for (const path of readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })) {
    const from = join(root, folder, path)
    if (statSync(from).isFile() && !path.endsWith('.ts')) cpSync(from, join(dist, folder, path), { recursive: true })
  }
}
cpSync(join(root, 'package.json'), join(dist, 'package.json'))
chmodSync(join(dist, 'src/main.js'), 0o755)
writeFileSync(join(dist, 'THIRD-PARTY-LICENSES.txt'), licences(output.flatMap((file) => (file.type === 'chunk' ? file.moduleIds : []))))

/** The licences of every package of which something is in the files; fails where one has none. */
function licences(modules: readonly string[]): string {
  const folders = new Set(modules.flatMap((id) => /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(id)?.[0] ?? []))
  return [...folders]
    .toSorted()
    .map((folder) => {
      const { name, version, license }: { name: string; version: string; license?: string } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
      const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry))
      if (file === undefined && license === undefined) throw new Error(`${name} has no licence`)
      return `${name} ${version} (${license})\n\n${file === undefined ? '' : readFileSync(join(folder, file), 'utf8').trim()}\n`
    })
    .join(`\n${'-'.repeat(80)}\n\n`)
}
