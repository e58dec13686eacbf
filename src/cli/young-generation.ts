import { PerformanceObserver } from 'node:perf_hooks'
import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8'

/** V8 would go on to three times 32 MiB; beyond this size requests become no cheaper here. */
const LARGEST_BYTES = 16 * 1024 * 1024

/**
 * Keeps V8's young generation as small as it begins (2 MiB) until `grow` is called, then lets it double with the load up
 * to 16 MiB. Both ways of starting, from source and from the package, get the same; a flag on the command line would not.
 *
 * The flag is one of the few V8 reads anew at every collection (docs/decisions/14).
 */
export function smallYoungGeneration(): { grow(): void } {
  setGrowthFactor(1)
  return {
    grow() {
      setGrowthFactor(2)
      const observer = new PerformanceObserver(() => {
        if (youngBytes() < LARGEST_BYTES) return
        setGrowthFactor(1)
        observer.disconnect()
      })
      observer.observe({ entryTypes: ['gc'] })
    }
  }
}

function setGrowthFactor(factor: number): void {
  setFlagsFromString(`--semi-space-growth-factor=${factor}`)
}

function youngBytes(): number {
  return getHeapSpaceStatistics().find((space) => space.space_name === 'new_space')?.space_size ?? 0
}
