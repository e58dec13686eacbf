import type { Server } from 'node:http'
import { Server as SocketServer } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import type { Clock } from '../exchange/clock.ts'
import { connectionsOf } from './listeners.ts'

/** Knows who is inside, and sees everybody out. */
export type Doorkeeper = {
  readonly inFlight: number
  /** Told of every request at its header and once more when it is over; says whether its connection stays open even while draining. */
  underWay(change: 1 | -1): boolean
  isDraining(): boolean
  /** Closes the servers without losing a request; resolves with how many were still under way after `patienceMs`. */
  drain(servers: readonly Server[], patienceMs: number): Promise<number>
}

// Real milliseconds. Callers have LEAVE to notice that answers now say `Connection: close`, once before and once after the
// door is shut; SETTLE to come back in before it is.
const LEAVE_MS = 300
const SETTLE_MS = 100
const LULL_MS = 3
const LOOK_MS = 20
const CALM_LOOKS = 4

/**
 * Draining, in the order in which nothing gets lost:
 *
 * 1. still open, answers say `Connection: close`: who can go elsewhere does;
 * 2. answers let connections stay, so that callers settle: a connection on its way in when the door is shut would be reset;
 * 3. shut, in a lull; whoever is inside gets an answer, which says `Connection: close` again;
 * 4. connections nobody has used meanwhile are closed, and those under way waited for.
 */
export function doorkeeper(clock: Clock): Doorkeeper {
  let phase: 'serving' | 'leaving' | 'settling' = 'serving'
  let inFlight = 0
  let begunWhileDraining = 0
  let changedAt = 0

  function underWay(change: 1 | -1): boolean {
    inFlight += change
    if (phase === 'serving') return false
    changedAt = clock.now()
    if (change === 1) begunWhileDraining += 1
    return phase === 'settling'
  }

  async function drain(servers: readonly Server[], patienceMs: number): Promise<number> {
    const untilAt = clock.now() + patienceMs
    phase = 'leaving'
    if (inFlight > 0 || (await connectionsOf(servers)) > 0) await rest(LEAVE_MS)
    const isBusy = begunWhileDraining > 0
    if (isBusy) {
      phase = 'settling'
      await rest(SETTLE_MS)
      await lull()
    }
    const areEmpty = Promise.all(servers.map(shut))
    phase = 'leaving'
    if (isBusy) await Promise.race([areEmpty, rest(LEAVE_MS)])
    // right behind the poll phase: whoever has sent something has been read, and is not taken for idle
    await setImmediate()
    for (const server of servers) server.close()
    await Promise.race([areEmpty, calm(untilAt)])
    return inFlight
  }

  function rest(realMs: number): Promise<void> {
    return clock.sleep(realMs / clock.realMs(1))
  }

  /** Resolves when nothing has begun or ended for a moment, or there is no such moment. */
  async function lull(): Promise<void> {
    const patientUntil = clock.now() + SETTLE_MS / clock.realMs(1)
    do await setImmediate()
    while (clock.now() - changedAt < LULL_MS / clock.realMs(1) && clock.now() < patientUntil)
  }

  /** Resolves when nothing is under way and goes on so: a connection let in last may still be sending its first request. */
  async function calm(untilAt: number): Promise<void> {
    for (let looks = 0; looks < CALM_LOOKS && clock.now() < untilAt; looks = inFlight === 0 ? looks + 1 : 0) await rest(LOOK_MS)
  }

  return {
    get inFlight() {
      return inFlight
    },
    underWay,
    isDraining: () => phase !== 'serving',
    drain
  }
}

/** Lets nobody in any more; resolves when all are out. The HTTP server's own `close` would reset idle connections at once. */
function shut(server: Server): Promise<void> {
  return new Promise((resolve) => {
    SocketServer.prototype.close.call(server, () => resolve())
  })
}
