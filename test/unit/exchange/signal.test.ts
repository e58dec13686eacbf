import fc from 'fast-check'
import { expect, it } from 'vitest'
import { Cancellation, type Signal } from '../../../src/exchange/signal.ts'

type Step = { readonly does: 'add' | 'remove'; readonly who: number } | { readonly does: 'abort'; readonly why: number }

/** Plays the steps on a signal; gives who was called, in order, and what the signal says in the end. */
function play(steps: readonly Step[], signal: Signal, abort: (reason: unknown) => void): unknown {
  const called: number[] = []
  const listeners = [0, 1, 2, 3].map((who) => () => called.push(who))
  for (const step of steps) {
    if (step.does === 'abort') abort(step.why)
    else if (step.does === 'add') signal.addEventListener('abort', listeners[step.who] as () => void)
    else signal.removeEventListener('abort', listeners[step.who] as () => void)
  }
  return { called, aborted: signal.aborted, reason: signal.reason }
}

it('a cancellation does what an AbortSignal does, whatever is done to it', () => {
  const step = fc.oneof(
    fc.record({ does: fc.constantFrom('add' as const, 'remove' as const), who: fc.integer({ min: 0, max: 3 }) }),
    fc.record({ does: fc.constant('abort' as const), why: fc.integer() })
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const platform = new AbortController()
      const ours = new Cancellation()
      expect(play(steps, ours, (reason) => ours.abort(reason))).toEqual(play(steps, platform.signal, (reason) => platform.abort(reason)))
    })
  )
})
