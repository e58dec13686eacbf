import type { Signal } from '../../exchange/signal.ts'
import type { Readable } from 'node:stream'
import type { Send } from '../../exchange/chain.ts'
import type { Clock } from '../../exchange/clock.ts'
import { NO_BODY, discard, type Body, type Request, type Response } from '../../exchange/message.ts'
import type { StoredAnswer } from './answer.ts'
import type { Exchange, Met, Situation } from './exchange.ts'

/** How a shared flight ended for those who joined it. */
export type Outcome =
  | { readonly kind: 'kept'; readonly answer: StoredAnswer }
  /** What came back was for the one who asked alone. */
  | { readonly kind: 'unshared' }
  /** It met a failure for which the stored answer stood in. */
  | { readonly kind: 'stood-in'; readonly met: Met }
  | { readonly kind: 'failed' }

/**
 * One request on its way for everybody who wants the same. It belongs to nobody: it has a signal of its own, and ends
 * early only when all who wanted it have left.
 */
export class Flight {
  readonly target: string
  readonly #controller = new AbortController()
  readonly #landed = Promise.withResolvers<Outcome>()
  #wanted = 1

  constructor(target: string) {
    this.target = target
  }

  get signal(): Signal {
    return this.#controller.signal
  }

  land(outcome: Outcome): void {
    this.#landed.resolve(outcome)
  }

  /** One who wanted it has gone. */
  leave(reason: unknown): void {
    this.#wanted -= 1
    if (this.#wanted === 0) this.#controller.abort(reason)
  }

  /** Waits for the outcome; a signal that fires abandons the wait, not the flight. */
  join(signal: Signal): Promise<Outcome> {
    if (signal.aborted) return Promise.reject(signal.reason)
    this.#wanted += 1
    const { promise, resolve, reject } = Promise.withResolvers<Outcome>()
    const leave = (): void => {
      reject(signal.reason)
      this.leave(signal.reason)
    }
    signal.addEventListener('abort', leave, { once: true })
    void this.#landed.promise.then((outcome) => {
      signal.removeEventListener('abort', leave)
      resolve(outcome)
    })
    return promise
  }
}

export type Flights = {
  get(key: string): Flight | undefined
  /** Goes upstream for this caller and for all who join; a caller that leaves leaves the flight to the others. */
  lead(request: Request, next: Send, key: string, situation: Situation): Promise<Response>
  /** Goes upstream with no caller waiting. What comes of it is stored or not; a failure is nobody's concern. */
  send(request: Request, next: Send, key: string, situation: Situation): void
  /** What these flights will bring is out of date already: nobody may join them any more. */
  closeTarget(target: string): void
  closePrefix(prefix: string): void
  /** Whether answers under this key turned out lately to be for one caller each: waiting for them is lost time. */
  isUnshared(key: string, now: number): boolean
}

/** The flights under way in one cache. Bounded by the callers there are. */
export function flights(exchange: Exchange, clock: Clock): Flights {
  const open = new Map<string, Flight>()
  const unshared = new Lately()

  async function lead(request: Request, next: Send, key: string, situation: Situation): Promise<Response> {
    const { signal } = request
    if (signal.aborted) throw signal.reason
    const flight = new Flight(request.target)
    const gone = Promise.withResolvers<never>()
    let body: Body = NO_BODY
    let hasLeft = false
    function leave(): void {
      if (hasLeft) return
      hasLeft = true
      gone.reject(signal.reason)
      flight.leave(signal.reason)
      discard(body)
    }
    signal.addEventListener('abort', leave, { once: true })
    const landing = fly(flight, key, request, next, situation)
    try {
      const response = await Promise.race([landing, gone.promise])
      body = response.body
      if (body.kind === 'stream') ifLetGo(body.stream, leave)
      else signal.removeEventListener('abort', leave)
      return response
    } catch (error) {
      // whoever waits for the flight goes on without us; what was meant for us is let go
      void landing.then((response) => discard(response.body), settledElsewhere)
      throw error
    }
  }

  function send(request: Request, next: Send, key: string, situation: Situation): void {
    void fly(new Flight(request.target), key, request, next, situation).then(({ body }) => discard(body), settledElsewhere)
  }

  /** Carries a flight through and lands it; settles as the exchange does. */
  async function fly(flight: Flight, key: string, request: Request, next: Send, situation: Situation): Promise<Response> {
    open.set(key, flight)
    try {
      const { response, shared, met } = await exchange.ask({ ...request, signal: flight.signal }, next, { ...situation, flight: flight.signal })
      void Promise.resolve(shared).then((answer) => {
        close(key, flight)
        if (met !== undefined) return flight.land({ kind: 'stood-in', met })
        if (answer !== undefined) unshared.delete(key)
        // an error says nothing about what the answer will be like when there is one
        else if (response.status < 500) unshared.add(key, clock.now())
        return flight.land(answer === undefined ? { kind: 'unshared' } : { kind: 'kept', answer })
      })
      return response
    } catch (error) {
      close(key, flight)
      flight.land({ kind: 'failed' })
      throw error
    }
  }

  function close(key: string, flight: Flight): void {
    if (open.get(key) === flight) open.delete(key)
  }

  function closeWhere(isOutdated: (target: string) => boolean): void {
    for (const [key, flight] of open) if (isOutdated(flight.target)) open.delete(key)
  }

  return {
    get: (key) => open.get(key),
    lead,
    send,
    closeTarget: (target) => closeWhere((other) => other === target),
    closePrefix: (prefix) => closeWhere((other) => other.startsWith(prefix)),
    isUnshared: (key, now) => unshared.has(key, now)
  }
}

/** Once the header is out, a caller leaves by letting go of the body. */
function ifLetGo(stream: Readable, leave: () => void): void {
  stream.once('close', () => {
    if (!stream.readableEnded) leave()
  })
}

// The flight tells those who wait for it how it ended; whoever gets here has left.
function settledElsewhere(): void {}

// A key is remembered for one to two of these spans of clock time, less where there are very many.
const SPAN_MS = 30_000
const SPAN_BYTES = 512 * 1024

/** Keys seen lately, in two generations: cheap to add to, bounded in time and bytes. */
class Lately {
  #young = new Set<string>()
  #old = new Set<string>()
  #youngBytes = 0
  #turnsAt = 0

  add(key: string, now: number): void {
    if (now >= this.#turnsAt || this.#youngBytes > SPAN_BYTES) this.#turn(now)
    this.#young.add(key)
    this.#youngBytes += key.length + 64
  }

  has(key: string, now: number): boolean {
    if (now >= this.#turnsAt) this.#turn(now)
    return this.#young.has(key) || this.#old.has(key)
  }

  delete(key: string): void {
    if (this.#young.size > 0) this.#young.delete(key)
    if (this.#old.size > 0) this.#old.delete(key)
  }

  #turn(now: number): void {
    this.#old = this.#young
    this.#young = new Set()
    this.#youngBytes = 0
    this.#turnsAt = now + SPAN_MS
  }
}
