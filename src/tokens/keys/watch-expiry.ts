import type { Timer } from '../../exchange/clock.ts'
import type { Tools } from '../../exchange/tools.ts'
import type { Store } from '../../state/store.ts'
import type { Credentials } from '../source.ts'
import { DAY_MS, daysLeft, day, dueAt, thresholdReached } from './expiry.ts'

const LOOK_EVERY_MS = 3_600_000
// Longer than any reminder of one key stays worth remembering.
const REMEMBER_MS = 90 * DAY_MS

export type ExpiryWatch = { close(): void }

/**
 * Reports when credentials end: a `credential-expiry` event for each at once and every hour (a certificate may have been
 * replaced), and one `warning` at 30, 28, 21, 14, 7, 1 and 0 days before.
 *
 * Which reminders were given is remembered in the store, by credential and date: restarts and replicas do not repeat
 * them, a renewed certificate begins anew. Thresholds passed while nothing ran are one warning, the latest.
 */
export function watchExpiry(credentials: Pick<Credentials, 'all'>, tools: Tools & { readonly store: Store }): ExpiryWatch {
  const { clock, report, store } = tools
  let timer: Timer | undefined
  let isClosed = false
  // Spares the store a question an hour.
  const given = new Set<string>()

  async function look(): Promise<void> {
    for (const { name, credentialExpiresAt } of credentials.all().map((source) => source.status())) {
      if (credentialExpiresAt === undefined) continue
      report({ kind: 'credential-expiry', credential: name, expiresAt: credentialExpiresAt })
      await remind(name, credentialExpiresAt)
    }
    if (!isClosed) timer = clock.after(LOOK_EVERY_MS, () => void look())
  }

  async function remind(credential: string, expiresAt: number): Promise<void> {
    const now = clock.wallNow()
    const threshold = thresholdReached(expiresAt, now)
    if (threshold === undefined) return
    const reminder = `expiry:${credential}:${day(expiresAt)}:${threshold}`
    if (given.has(reminder)) return
    given.add(reminder)
    // Adding is atomic: of several replicas one finds itself the first.
    if ((await store.add(reminder, 1, REMEMBER_MS)) !== 1) return
    report({ kind: 'warning', about: credential, message: sentence(credential, expiresAt, now) })
  }

  void look()
  return {
    close() {
      isClosed = true
      timer?.cancel()
    }
  }
}

function sentence(credential: string, expiresAt: number, now: number): string {
  const left = daysLeft(expiresAt, now)
  if (left <= 0) return `the key of credential ${credential} ended on ${day(expiresAt)}, nothing more is signed with it; make a new one with attache keys new`
  const days = left === 1 ? '1 day' : `${left} days`
  return `the key of credential ${credential} ends in ${days}, on ${day(expiresAt)}; its successor is due at the provider by ${day(dueAt(expiresAt))}, make it with attache keys rotate`
}
