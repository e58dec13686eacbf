import type { Policy, Send } from '../exchange/chain.ts'
import type { AttemptJournal, Request, Response } from '../exchange/message.ts'

/**
 * Tells the journal of a background operation about each attempt, before a byte of it leaves: after a crash it must be
 * known whether a non-repeatable request may have been carried out. Has to stand where nothing below waits any more.
 */
export function attemptMark(): Policy {
  return function journal(request, next) {
    return request.journal === undefined ? next(request) : written(request.journal, request, next)
  }
}

async function written(journal: AttemptJournal, request: Request, next: Send): Promise<Response> {
  await journal.sending()
  try {
    return await next(request)
  } catch (error) {
    if (!request.trace.sent) await journal.notSent()
    throw error
  }
}
