import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'

export const ROOT = join(import.meta.dirname, '../..')

/** One source file; `path` is relative to the root, with forward slashes. */
export type Source = { readonly path: string; readonly text: string; readonly imports: readonly Import[] }

/** `target` is a path relative to the root for our own files, a package name for third parties and `node:` modules. */
export type Import = { readonly target: string; readonly own: boolean; readonly typeOnly: boolean; readonly specifier: string }

/** Every TypeScript file below a folder of the project; none where the folder does not exist. */
export function sources(folder: string): Source[] {
  const base = join(ROOT, folder)
  if (!existsSync(base)) return []
  return readdirSync(base, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.ts'))
    .map((path) => join(folder, path))
    .toSorted()
    .map((path) => {
      const text = readFileSync(join(ROOT, path), 'utf8')
      return { path, text, imports: importsOf(path, text) }
    })
}

const IMPORT = /^\s*(?:import|export)\s+(type\s+)?(?:[^'";]*?\sfrom\s+)?'([^']+)'|\bimport\(\s*'([^']+)'/gm

function importsOf(path: string, text: string): Import[] {
  return [...text.matchAll(IMPORT)].map((match) => {
    const specifier = match[2] ?? match[3] ?? ''
    const typeOnly = match[1] !== undefined || onlyTypesNamed(match[0])
    const own = specifier.startsWith('.')
    const target = own ? relative(ROOT, join(ROOT, dirname(path), specifier)) : packageOf(specifier)
    return { target, own, typeOnly, specifier }
  })
}

// `import { type A, type B } from …`
function onlyTypesNamed(statement: string): boolean {
  const braces = /^\s*import\s+\{([^}]*)\}/.exec(statement)
  return braces !== null && (braces[1] ?? '').split(',').every((name) => name.trim() === '' || name.trim().startsWith('type '))
}

function packageOf(specifier: string): string {
  const parts = specifier.split('/')
  return specifier.startsWith('@') ? parts.slice(0, 2).join('/') : specifier.startsWith('node:') ? specifier : (parts[0] ?? specifier)
}

/** The folder below `src` a file belongs to, or the file itself for those directly in `src`. */
export function roomOf(path: string): string {
  const [, first = ''] = path.split('/')
  return first
}

/** The code without comments; string contents stay, and so do their line numbers. */
export function codeOf(source: Source): string {
  const blank = (comment: string): string => comment.replaceAll(/[^\n]/g, ' ')
  return source.text.replaceAll(/^\s*\/\*[\s\S]*?\*\//gm, blank).replaceAll(/(^|\s)\/\/.*$/gm, blank)
}

/** `path:line: text` of every match, for messages that say where to look. */
export function findings(from: readonly Source[], pattern: RegExp): string[] {
  return from.flatMap((source) =>
    codeOf(source)
      .split('\n')
      .flatMap((line, at) => (pattern.test(line) ? [`${source.path}:${at + 1}: ${line.trim()}`] : []))
  )
}
