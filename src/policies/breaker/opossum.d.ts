// opossum ships no types; these are the parts used here.
declare module 'opossum' {
  import type { EventEmitter } from 'node:events'

  type Options = {
    name: string
    timeout: false
    enableSnapshots: false
    rollingPercentilesEnabled: false
    volumeThreshold: number
    resetTimeout: number
    rollingCountBuckets: number
    rotateBucketController: EventEmitter
    state: { closed: boolean; halfOpen: boolean }
  }

  class CircuitBreaker<Arguments extends unknown[], Result> {
    constructor(action: (...args: Arguments) => Promise<Result>, options: Options)
    fire(...args: Arguments): Promise<Result>
    open(): void
    shutdown(): void
    readonly closed: boolean
    readonly opened: boolean
    readonly halfOpen: boolean
  }

  export { CircuitBreaker as default }
}
