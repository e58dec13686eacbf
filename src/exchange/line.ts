import type { Request } from './message.ts'

type Waiter<Ticket> = { readonly request: Request; readonly go: (ticket: Ticket) => void; readonly refuse: (reason: unknown) => void }

/** Callers waiting their turn, first come first served; one whose request is aborted leaves the line. */
export class Line<Ticket> {
  // made when somebody joins: there may be a line for each of many thousand keys
  #waiters: Set<Waiter<Ticket>> | undefined

  get length(): number {
    return this.#waiters?.size ?? 0
  }

  /** Resolves with what `next` is given when it is this caller's turn; rejects with its signal's reason, or when dismissed. */
  join(request: Request): Promise<Ticket> {
    const { signal } = request
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason)
      const waiters = (this.#waiters ??= new Set())
      const leave = (): void => waiter.refuse(signal.reason)
      const over = (): void => {
        waiters.delete(waiter)
        signal.removeEventListener('abort', leave)
      }
      const waiter: Waiter<Ticket> = {
        request,
        go(ticket) {
          over()
          resolve(ticket)
        },
        refuse(reason) {
          over()
          reject(reason)
        }
      }
      waiters.add(waiter)
      signal.addEventListener('abort', leave)
      return undefined
    })
  }

  /** The request of whoever is first, undefined where nobody waits. */
  get first(): Request | undefined {
    for (const { request } of this.#waiters ?? []) return request
    return undefined
  }

  /** Lets the first caller go; false where nobody waits. */
  next(ticket: Ticket): boolean {
    for (const waiter of this.#waiters ?? []) {
      waiter.go(ticket)
      return true
    }
    return false
  }

  /** Sends the first caller away. */
  refuse(reason: unknown): void {
    for (const waiter of this.#waiters ?? []) return waiter.refuse(reason)
  }

  /** Sends away everybody for whom there is a reason. */
  dismiss(reasonFor: (request: Request) => unknown): void {
    for (const waiter of this.#waiters ?? []) {
      const reason = reasonFor(waiter.request)
      if (reason !== undefined) waiter.refuse(reason)
    }
  }
}
