/**
 * Milliseconds to wait before retry number `retry` (1 is the first): its step of the ladder, the last step for all that
 * follow, lengthened by up to the share `jitter`. `chance` is uniform in [0, 1).
 */
export function ladderMs(backoff: readonly number[], retry: number, jitter: number, chance: number): number {
  const step = backoff[Math.min(retry, backoff.length) - 1] ?? 0
  return step * (1 + jitter * chance)
}
