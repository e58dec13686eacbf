import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

// vitest does not expose it; a measurement of memory without it measures the collector's mood
setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

/** Bytes this process really uses, after everything that is garbage has been collected. */
export async function memoryBytes(): Promise<number> {
  // signals are let go in a later turn than the one they became garbage in
  for (let turn = 0; turn < 3; turn++) {
    collectGarbage()
    await new Promise((resolve) => setImmediate(resolve))
  }
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}
