import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { empty, type Answer, type Call, type Provider, type ProviderPlan, type Rule, type TokenRequest } from './call.ts'
import { sandboxClock, type SandboxClock } from './clock.ts'
import { control } from './control.ts'
import { createFaults, type Fault, type Faults } from './faults.ts'
import { createLedger, type Counts, type Ledger, type Seen } from './ledger.ts'
import { drip, faultAnswer, garbage, over, reset, truncate, withDate, write } from './reply.ts'
import { match } from './routes.ts'
import { bodyOf, fieldsOf, originOf } from './wire.ts'

export type SandboxOptions = {
  readonly providers: readonly ProviderPlan[]
  /** 0 for any free port. Default 7700. */
  readonly port?: number
  /** Default 127.0.0.1. */
  readonly host?: string
  /** Provider seconds in a real one. Default 1. */
  readonly speed?: number
  readonly clock?: SandboxClock
  /**
   * Real milliseconds a message may be under way or wait in a busy event loop: calls younger than this may have been sent
   * before an answer was read, and are given the benefit of the doubt. Grows with speed like everything. Default 100.
   */
  readonly latencyMs?: number
  /** Real milliseconds every call takes, so that calls under way together are seen to be. Default 2. */
  readonly serviceMs?: number
}

export type Sandbox = {
  readonly url: string
  readonly port: number
  readonly ledger: Ledger
  readonly faults: Faults
  readonly providers: ReadonlyMap<string, Provider>
  /** Notes what only the passing of time proves; call it before reading the ledger. */
  settle(): void
  /** Empties ledger and journal and forgets the calls seen so far; tokens stay valid. */
  forget(): void
  /** How many connections are open. */
  connections(): number
  close(): Promise<void>
}

type Connection = { readonly id: number; user: { rules: readonly Rule[]; client: string } | undefined; idle: { cancel(): void } | undefined }

/** One exchange with a provider: where it is counted, and how it may be answered. */
type Exchange = { name: string; provider: Provider; counts: Counts; seen: Seen; request: IncomingMessage; response: ServerResponse; fault: Fault | undefined }

// timers of node may fire this much early
const TIMER_HAIR_MS = 2
// real time: sockets do not live faster
const IDLE_CONNECTION_MS = 120_000
const KEPT_CONNECTION_MS = 240_000

/** Starts the strict providers on one port, each below `/NAME`: `/NAME/token` and `/NAME/api/…`. */
export async function startSandbox(options: SandboxOptions): Promise<Sandbox> {
  const { host = '127.0.0.1', latencyMs = 100, serviceMs = 2 } = options
  const clock = options.clock ?? sandboxClock(options.speed)
  const ledger = createLedger(clock)
  const faults = createFaults()
  const connections = new Map<Socket, Connection>()
  const providers = new Map(
    options.providers.map(({ name, open }) => {
      const note = (rule: string, severity: 'S1' | 'S2' | 'S3', client: string, detail: string): void => ledger.note(name, rule, severity, client, detail)
      return [name, open({ clock, slackMs: latencyMs * clock.speed, hairMs: TIMER_HAIR_MS * clock.speed, note })]
    })
  )
  let lastConnection = 0
  let lastCall = 0

  const server = createServer({ keepAliveTimeout: KEPT_CONNECTION_MS, requestTimeout: 0 }, (request, response) => {
    serve(request, response).catch((error: unknown) => {
      // a fault of the sandbox must look like none of a provider's
      if (response.headersSent) response.destroy()
      else response.writeHead(599, { 'Content-Type': 'text/plain' }).end(`sandbox: ${error instanceof Error ? error.message : String(error)}\n`)
    })
  })
  server.on('connection', (socket) => {
    const connection: Connection = { id: ++lastConnection, user: undefined, idle: undefined }
    connections.set(socket, connection)
    socket.on('close', () => {
      connections.delete(socket)
      connection.idle?.cancel()
      // a reset socket may be gone before its call is over
      connection.user = undefined
    })
  })

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const at = clock.now()
    const target = request.url ?? '/'
    const [, name = '', rest = ''] = /^\/([^/?]*)(.*)$/s.exec(target) ?? []
    const provider = providers.get(name)
    if (provider === undefined) {
      // RFC 9110 §15.4: who follows a redirect leaves the credential behind
      if (request.headers.authorization !== undefined) ledger.note('sandbox', 'RFC9110-15.4', 'S1', 'unknown', 'a credential where no provider is')
      return write(response, control(request.method ?? 'GET', target, await bodyOf(request), sandbox))
    }
    const counts = ledger.counts(name)
    const kind = rest.startsWith('/api/') ? 'api' : 'token'
    const path = rest.split('?')[0] ?? rest
    const seen = ledger.see({
      t: Math.round(at),
      provider: name,
      kind,
      method: request.method ?? 'GET',
      path: path.replace(/^\/api/, ''),
      outcome: 'under way'
    })
    const exchange: Exchange = { name, provider, counts, seen, request, response, fault: undefined }
    if (kind === 'api') await api(exchange, at, rest.slice('/api'.length))
    else if (path === '/token') await token(exchange, at)
    else {
      seen.outcome = 'other'
      const answer = provider.extra?.(path, await tokenRequest(exchange, at))
      await write(response, answer ?? empty(404))
    }
  }

  async function api(exchange: Exchange, at: number, target: string): Promise<void> {
    const { provider, request, counts, seen } = exchange
    const { method = 'GET' } = request
    const path = target.split('?')[0] ?? target
    const fields = fieldsOf(request)
    counts.apiCalls++
    const caller = provider.authenticate({ at, method, target, path, fields })
    exchange.fault = faults.strike(exchange.name, method, path)
    const body = await bodyOf(request)
    counts.bytesIn += body.length
    const { operation, params, known } = match(provider.operations, method, path)
    const connection = connections.get(request.socket)
    const call: Call = {
      id: ++lastCall,
      at,
      connection: connection?.id ?? 0,
      httpVersion: request.httpVersion,
      method,
      target,
      path,
      fields,
      body,
      operation,
      params,
      origin: originOf(request),
      client: caller.client,
      token: caller.token
    }
    use(connection, provider.rules, call.client)
    for (const rule of provider.rules) rule.arrived?.(call)
    await pause(serviceMs)
    // what the operation would answer; only asked for where the call gets that far
    const work = (): Answer => caller.refusal ?? operation?.handle(call) ?? (known ? empty(405) : provider.failure(404))
    const told = (answer: Answer, processed: boolean): Answer => {
      const dated = withDate(answer, clock)
      if (answer.status === 401 && call.token !== undefined) call.token.rejectedAt ??= clock.now()
      counts.answers[answer.status] = (counts.answers[answer.status] ?? 0) + 1
      seen.outcome = String(answer.status)
      // half an answer is none
      if (exchange.fault?.kind !== 'truncate') for (const rule of provider.rules) rule.answered?.(call, dated, processed)
      return dated
    }
    const { processed, answered } = await respond(exchange, work, told)
    if (!answered) counts.unanswered++
    const isWhole = answered && exchange.fault?.kind !== 'truncate' && exchange.response.writableFinished
    if (!isWhole) {
      seen.outcome = exchange.fault?.kind ?? 'caller left'
      // a dead socket we did not kill ourselves was closed by the caller
      const byCaller = exchange.fault === undefined || ['hang', 'delay', 'slow-body'].includes(exchange.fault.kind)
      for (const rule of provider.rules) rule.dropped?.(call, { processed, byCaller })
    }
    for (const rule of provider.rules) rule.ended?.(call)
    release(connection)
  }

  async function token(exchange: Exchange, at: number): Promise<void> {
    const { provider, counts, seen, request } = exchange
    counts.tokenRequests++
    exchange.fault = faults.strike(exchange.name, request.method ?? 'POST', 'token')
    const asked = await tokenRequest(exchange, at)
    const connection = connections.get(request.socket)
    const id = ++lastCall
    use(connection, provider.rules, 'token client')
    for (const rule of provider.rules) rule.tokenOpened?.(id, 'token client')
    await pause(serviceMs)
    const { fault } = exchange
    const instead =
      fault?.kind === 'status' ? faultAnswer(provider, fault) : fault?.kind === 'reset-before-header' || fault?.kind === 'hang' ? empty(503) : undefined
    const reply = provider.token(asked, instead)
    const { answered } = await respond(
      exchange,
      () => reply.answer,
      (answer) => {
        seen.outcome = String(answer.status)
        return withDate(answer, clock)
      }
    )
    for (const rule of provider.rules) rule.tokenEnded?.(id)
    if (reply.token === undefined) counts.tokensRefused++
    else counts.tokensIssued++
    if (!answered) {
      counts.unanswered++
      seen.outcome = fault?.kind ?? 'caller left'
    }
    const isWhole = answered && fault?.kind !== 'truncate' && exchange.response.writableFinished
    if (reply.token !== undefined && !isWhole) reply.token.lost = true
    release(connection)
  }

  /** Answers as the fault wants it. `told` is called just before the first byte of any answer leaves. */
  async function respond(
    exchange: Exchange,
    work: () => Answer,
    told: (answer: Answer, processed: boolean) => Answer
  ): Promise<{ processed: boolean; answered: boolean }> {
    const { response, fault, provider } = exchange
    const sent = async (writing: Promise<void>): Promise<{ processed: boolean; answered: boolean }> => {
      await writing
      return { processed: true, answered: true }
    }
    if (response.destroyed) return { processed: false, answered: false }
    switch (fault?.kind) {
      case 'status':
        await write(response, told(faultAnswer(provider, fault), false))
        return { processed: false, answered: true }
      case 'reset-before-header':
        await reset(response)
        return { processed: false, answered: false }
      case 'garbage':
        await garbage(response)
        return { processed: false, answered: false }
      case 'hang':
        await over(response)
        return { processed: false, answered: false }
      case 'reset-after-read':
        work()
        await reset(response)
        return { processed: true, answered: false }
      case 'slow-body':
        return sent(drip(response, told(work(), true), fault, clock))
      case 'truncate':
        return sent(truncate(response, told(work(), true)))
      case 'delay': {
        const gone = await Promise.race([over(response).then(() => true), new Promise<boolean>((resolve) => clock.after(fault.delayMs, () => resolve(false)))])
        if (gone) return { processed: false, answered: false }
        return sent(write(response, told(work(), true)))
      }
      default:
        return sent(write(response, told(work(), true)))
    }
  }

  async function tokenRequest({ request }: Exchange, at: number): Promise<TokenRequest> {
    const origin = originOf(request)
    return { at, method: request.method ?? 'GET', url: new URL(request.url ?? '/', origin), fields: fieldsOf(request), body: await bodyOf(request), origin }
  }

  function use(connection: Connection | undefined, rules: readonly Rule[], client: string): void {
    if (connection === undefined) return
    connection.idle?.cancel()
    connection.user = { rules, client }
  }
  function release(connection: Connection | undefined): void {
    if (connection?.user === undefined) return
    const { rules, client } = connection.user
    connection.idle = clock.afterReal(IDLE_CONNECTION_MS, () => {
      for (const rule of rules) rule.idle?.(client, IDLE_CONNECTION_MS)
    })
  }
  function pause(realMs: number): Promise<void> {
    return new Promise((resolve) => void clock.afterReal(realMs, resolve))
  }

  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.port ?? 7700, host, () => resolve())
  })
  const { port } = server.address() as AddressInfo
  const rulesOf = (): Rule[] => [...providers.values()].flatMap((provider) => provider.rules)
  const sandbox: Sandbox = {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${port}`,
    port,
    ledger,
    faults,
    providers,
    settle: () => rulesOf().forEach((rule) => rule.settle?.()),
    forget() {
      ledger.reset()
      for (const rule of rulesOf()) rule.forget?.()
    },
    connections: () => connections.size,
    close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      server.closeAllConnections()
      return closed
    }
  }
  return sandbox
}
