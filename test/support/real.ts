import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'

/**
 * Finds a real program these tests run against, in PATH. Where it is missing: undefined and a line that says so (use
 * `describe.skipIf`), or an error under REQUIRE_REAL=1, so that a full run cannot pass by skipping.
 */
export function requireReal(binary: string): string | undefined {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    const candidate = join(folder, binary)
    try {
      accessSync(candidate, constants.X_OK)
      return candidate
    } catch {
      continue
    }
  }
  if (process.env['REQUIRE_REAL'] === '1') throw new Error(`${binary} is not installed, and REQUIRE_REAL=1`)
  console.warn(`skipped: ${binary} is not installed`)
  return undefined
}
