/** The largest number of events in any half-open window of this length, wherever it begins. `times` in ascending order. */
export function fullestWindow(times: readonly number[], windowMs: number): number {
  let fullest = 0
  let from = 0
  times.forEach((time, i) => {
    while ((times[from] ?? 0) <= time - windowMs) from += 1
    fullest = Math.max(fullest, i - from + 1)
  })
  return fullest
}
