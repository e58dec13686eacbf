import type { Policy } from '../exchange/chain.ts'

/**
 * Tells the journal of a background operation about each attempt, before a byte of it leaves: after a crash it must be
 * known whether a non-repeatable request may have been carried out. Has to stand where nothing below waits any more.
 */
export function attemptMark(): Policy {
  return async function journal(request, next) {
    if (request.journal === undefined) return next(request)
    await request.journal.sending()
    try {
      return await next(request)
    } catch (error) {
      if (!request.trace.sent) await request.journal.notSent()
      throw error
    }
  }
}
