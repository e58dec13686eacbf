import type { Signal } from './signal.ts'

/** Waits for something shared: the signal ends this wait, with the signal's reason, and never the thing itself. */
export function abandonable<T>(shared: Promise<T>, signal: Signal): Promise<T> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason)
    function leave(): void {
      reject(signal.reason)
    }
    // Two handlers instead of `finally`, which would be two more promises for each of thousands who wait.
    shared.then(
      (value) => {
        signal.removeEventListener('abort', leave)
        resolve(value)
      },
      (error: unknown) => {
        signal.removeEventListener('abort', leave)
        reject(error)
      }
    )
    signal.addEventListener('abort', leave, { once: true })
    return undefined
  })
}
