/** One thing that is wrong, or worth a warning: where it stands, which key, and the way out. Never holds a secret. */
export type Finding = {
  readonly file: string
  readonly line: number | undefined
  /** Dotted path of the key, empty for the whole file. */
  readonly key: string
  readonly message: string
}

/** `file:line: key: message`, on one line whatever characters a key has. */
export function formatFinding(finding: Finding): string {
  const place = finding.line === undefined ? finding.file : `${finding.file}:${finding.line}`
  const text = [place, finding.key, finding.message].filter((part) => part !== '').join(': ')
  return text.replaceAll(/[\p{Cc}\u2028\u2029]/gu, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`)
}

/** A config that cannot be used; the message is lower case and names the key or file. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
}

/**
 * The candidate that was probably meant, undefined where none is near: spelling apart in case, `_` and `-`, or by at most
 * a third of the letters.
 */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const plain = fold(word)
  const ranked = candidates.map((candidate) => ({ candidate, distance: editDistance(plain, fold(candidate)) })).toSorted((a, b) => a.distance - b.distance)
  const best = ranked[0]
  return best !== undefined && best.distance <= Math.max(1, Math.ceil(plain.length / 3)) ? best.candidate : undefined
}

function fold(word: string): string {
  return word.slice(0, 64).toLowerCase().replaceAll(/[_-]/g, '')
}

/** Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment). */
function editDistance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, j) => j)]
  const at = (i: number, j: number): number => rows[i]?.[j] ?? Number.POSITIVE_INFINITY
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    rows.push(row)
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1]
      const swapped = a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? at(i - 2, j - 2) + 1 : Number.POSITIVE_INFINITY
      row[j] = Math.min(at(i - 1, j) + 1, at(i, j - 1) + 1, at(i - 1, j - 1) + (same ? 0 : 1), swapped)
    }
  }
  return at(a.length, b.length)
}
