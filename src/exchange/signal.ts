/**
 * What a wait needs to know of its end: the part of the platform's `AbortSignal` that is used here. Every `AbortSignal` is
 * one; on the path of every request a `Cancellation` is, which costs a tenth of an `AbortController` with a listener.
 */
export type Signal = {
  readonly aborted: boolean
  /** Why, once `aborted`. */
  readonly reason: unknown
  addEventListener(type: 'abort', listener: () => void, options?: { once: true }): void
  removeEventListener(type: 'abort', listener: () => void): void
}

type Listener = () => void

/** A signal with its switch. Listeners are called once, in the order they came; those added after the end are not. */
export class Cancellation implements Signal {
  aborted = false
  reason: unknown = undefined
  // nearly always one or two: the array is made for the second
  #first: Listener | undefined
  #others: Listener[] | undefined

  addEventListener(_type: 'abort', listener: Listener): void {
    if (this.aborted || this.#first === listener || this.#others?.includes(listener) === true) return
    if (this.#first === undefined && this.#others === undefined) this.#first = listener
    else (this.#others ??= []).push(listener)
  }

  removeEventListener(_type: 'abort', listener: Listener): void {
    if (this.#first === listener) this.#first = undefined
    else if (this.#others !== undefined) this.#others = this.#others.filter((other) => other !== listener)
  }

  /** Ends it for this reason; ending it again changes nothing. */
  abort(reason: unknown): void {
    if (this.aborted) return
    this.aborted = true
    this.reason = reason
    const first = this.#first
    const others = this.#others
    this.#first = undefined
    this.#others = undefined
    first?.()
    for (const listener of others ?? []) listener()
  }
}
