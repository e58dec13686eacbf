// Replicas that opened together must not probe together.
const JITTER = 0.25

/** A pause lengthened by up to a quarter; `chance` is uniform in [0, 1). */
export function cooldownMs(pauseMs: number, chance: number): number {
  return pauseMs * (1 + JITTER * chance)
}

/** The pause after a probe that failed: twice as long, up to the maximum, and never shorter than the first. */
export function grown(pauseMs: number, bounds: { cooldown: number; maxCooldown: number }): number {
  return Math.max(bounds.cooldown, Math.min(pauseMs * 2, bounds.maxCooldown))
}
