import type { Timer } from '../../exchange/clock.ts'
import type { Rate } from '../../exchange/options.ts'
import type { UpstreamTools } from '../../exchange/tools.ts'
import type { Quota } from './quota.ts'

const AT_MOST_EVERY_MS = 1000
/** Less more than what was said is no news before the next second. */
const NEWS = 0.001

/** Reports how full each limit is, of all keys the fullest: more at once, less at most once a second, and empty again when nothing was used for a window. */
export function usageReport(limits: readonly Rate[], tools: UpstreamTools): { taken(quotas: readonly Quota[], now: number): void } {
  const { clock, report, upstream } = tools
  const gauges = limits.map((limit) => ({ limit, peak: 0, said: 0, saidAt: -Infinity, usedAt: 0, decay: undefined as Timer | undefined }))

  function decayLater(gauge: (typeof gauges)[number]): void {
    const spanMs = gauge.limit.windowMs * 1.1
    gauge.decay ??= clock.after(gauge.usedAt + spanMs - clock.now(), () => {
      gauge.decay = undefined
      if (clock.now() - gauge.usedAt < spanMs) return decayLater(gauge)
      gauge.peak = 0
      gauge.said = 0
      return report({ kind: 'volume', upstream, window: gauge.limit.label, usedRatio: 0 })
    })
  }

  return {
    taken(quotas, now) {
      for (let i = 0; i < gauges.length; i++) {
        const gauge = gauges[i]
        const quota = quotas[i]
        if (gauge === undefined || quota === undefined) continue
        // what was fullest before a lull says nothing about now
        if (now - gauge.usedAt >= AT_MOST_EVERY_MS) gauge.peak = 0
        gauge.usedAt = now
        gauge.peak = Math.max(gauge.peak, quota.usedRatio(now))
        const isDue = now - gauge.saidAt >= AT_MOST_EVERY_MS
        if (!isDue && gauge.peak < gauge.said + NEWS) continue
        report({ kind: 'volume', upstream, window: gauge.limit.label, usedRatio: gauge.peak })
        gauge.said = gauge.peak
        if (!isDue) continue
        gauge.saidAt = now
        gauge.peak = 0
        decayLater(gauge)
      }
    }
  }
}
