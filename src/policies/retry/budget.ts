/** How many retries a whole upstream may see, so that an outage is not answered with a flood. */
export type Budget = {
  /** Counts a request. */
  request(): void
  /** Counts a retry and says true, or says false where the budget is used up. */
  take(): boolean
}

// A lone request always gets its attempts (contract §6.2), however few requests there were before it.
const ALWAYS_PER_SECOND = 10
const SECONDS = 60

/** Retries up to `share` of the requests of the last 60 seconds, and 10 in any second of the clock whatever the share. */
export function retryBudget(share: number, now: () => number): Budget {
  const requests = new Float64Array(SECONDS)
  const retries = new Float64Array(SECONDS)
  let allRequests = 0
  let allRetries = 0
  let second = 0

  // the slot of this second, with everything older than a minute forgotten
  function slot(): number {
    const current = Math.floor(now() / 1000)
    for (let stale = Math.max(second + 1, current - SECONDS + 1); stale <= current; stale++) {
      const at = stale % SECONDS
      allRequests -= requests[at] as number
      allRetries -= retries[at] as number
      requests[at] = 0
      retries[at] = 0
    }
    second = Math.max(second, current)
    return second % SECONDS
  }

  return {
    request() {
      const at = slot()
      requests[at] = (requests[at] as number) + 1
      allRequests += 1
    },
    take() {
      const at = slot()
      const inThisSecond = retries[at] as number
      if (inThisSecond >= ALWAYS_PER_SECOND && allRetries + 1 > share * allRequests) return false
      retries[at] = inThisSecond + 1
      allRetries += 1
      return true
    }
  }
}
