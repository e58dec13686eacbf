import type { Signal } from '../exchange/signal.ts'

/** Lets so many through at once; the others wait in order. */
export type Turnstile = {
  /** Resolves with the way out, to be called once; rejects with the signal's reason as soon as it is aborted. */
  enter(signal: Signal): Promise<() => void>
}

export function turnstile(places: number): Turnstile {
  const queue = new Set<() => void>()
  let free = places

  function leave(): void {
    free += 1
    const [next] = queue
    next?.()
  }

  function enter(signal: Signal): Promise<() => void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason)
      const go = (): void => {
        queue.delete(go)
        signal.removeEventListener('abort', giveUp)
        free -= 1
        let isInside = true
        resolve(() => {
          if (isInside) leave()
          isInside = false
        })
      }
      const giveUp = (): void => {
        queue.delete(go)
        reject(signal.reason)
      }
      if (free > 0) return go()
      queue.add(go)
      signal.addEventListener('abort', giveUp, { once: true })
      return undefined
    })
  }

  return { enter }
}
