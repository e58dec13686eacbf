import { PerformanceObserver } from 'node:perf_hooks'
import { getHeapSpaceStatistics, setFlagsFromString } from 'node:v8'

/** Not doubled again from here; V8 would go on to 64 MiB (and as much again while it collects). */
const LARGE_BYTES = 24 * 1024 * 1024

/** The old generation is collected when it has grown by this share since the last time; by V8's own choice up to 300. */
const OLD_GROWTH_PERCENT = 100

/**
 * Keeps V8's young generation as small as it begins (2 MiB) until `grow` is called, then lets it double with the load up
 * to 32 MiB. Both ways of starting, from source and from the package, get the same; a flag on the command line would not.
 *
 * The flags are two of the few V8 reads anew at every collection (docs/decisions/15).
 */
export function smallYoungGeneration(): { grow(): void } {
  setGrowthFactor(1)
  setFlagsFromString(`--heap-growing-percent=${OLD_GROWTH_PERCENT}`)
  return {
    grow() {
      setGrowthFactor(2)
      const observer = new PerformanceObserver(() => {
        if (youngBytes() < LARGE_BYTES) return
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
