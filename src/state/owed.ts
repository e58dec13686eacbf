import type { Clock } from '../exchange/clock.ts'
import type { Backend } from './backend.ts'

/** What was written while the backend was away, to be made good when it is back. */
export type Owed = {
  /** The last thing to be done to `key`; replaces what was owed to it before. */
  owe(key: string, sizeBytes: number, pay: (backend: Backend) => Promise<unknown>): void
  /** Adds to what is owed to a counter. */
  oweCounter(key: string, amount: number, expiresAt: number): void
  forgetCounter(key: string): void
  /** Pays all, also what comes in meanwhile; rejects with the backend's error, what is left stays owed. */
  settle(backend: Backend): Promise<void>
  clear(): void
  readonly size: number
}

type Debt = { sizeBytes: number; pay: (backend: Backend) => Promise<unknown> }
type Sum = { amount: number; expiresAt: number }

const ROUNDS = 100

/** Over the bounds the oldest debts are forgotten first. */
export function owedTo(clock: Pick<Clock, 'now'>, bounds: { entries: number; bytes: number }): Owed {
  const debts = new Map<string, Debt>()
  const counters = new Map<string, Sum>()
  let bytes = 0

  function forget(key: string): void {
    bytes -= debts.get(key)?.sizeBytes ?? 0
    debts.delete(key)
  }

  function owe(key: string, sizeBytes: number, pay: (backend: Backend) => Promise<unknown>): void {
    forget(key)
    debts.set(key, { sizeBytes, pay })
    bytes += sizeBytes
    for (const oldest of debts.keys()) {
      if (debts.size <= bounds.entries && bytes <= bounds.bytes) break
      forget(oldest)
    }
  }

  function oweCounter(key: string, amount: number, expiresAt: number): void {
    const sum = counters.get(key)
    if (sum !== undefined && sum.expiresAt > clock.now()) {
      sum.amount += amount
      return
    }
    counters.set(key, { amount, expiresAt })
    for (const oldest of counters.keys()) {
      if (counters.size <= bounds.entries) break
      counters.delete(oldest)
    }
  }

  async function payCounter(backend: Backend, key: string, sum: Sum): Promise<void> {
    const paid = sum.amount
    const ttlMs = sum.expiresAt - clock.now()
    if (ttlMs > 0 && paid !== 0) await backend.add(key, paid, ttlMs)
    // Calls may have added to it during the payment.
    sum.amount -= paid
    if (sum.amount === 0 && counters.get(key) === sum) counters.delete(key)
  }

  async function settle(backend: Backend): Promise<void> {
    for (let round = 0; round < ROUNDS && debts.size + counters.size > 0; round++) {
      for (const [key, debt] of debts) {
        await debt.pay(backend)
        if (debts.get(key) === debt) forget(key)
      }
      for (const [key, sum] of counters) await payCounter(backend, key, sum)
    }
  }

  return {
    owe,
    oweCounter,
    settle,
    forgetCounter: (key) => void counters.delete(key),
    clear() {
      debts.clear()
      counters.clear()
      bytes = 0
    },
    get size() {
      return debts.size + counters.size
    }
  }
}
