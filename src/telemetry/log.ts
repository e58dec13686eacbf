import { destination, pino, type Logger } from 'pino'
import type { Clock } from '../exchange/clock.ts'
import type { Event } from '../exchange/events.ts'

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent'

/** One JSON object a line on standard output: one line per request, one per token request, and what an operator must know. */
export type Log = {
  write(event: Event): void
  info(message: string, details?: Readonly<Record<string, unknown>>): void
  warn(message: string, details?: Readonly<Record<string, unknown>>): void
  error(message: string, details?: Readonly<Record<string, unknown>>): void
  /** Writes what is left, before the process ends. */
  close(): void
}

/** Real milliseconds for which request lines wait for others. */
const GATHER_MS = 20
const FULL_BATCH = 64 * 1024

/** Opens the log; `file` is a path, standard output when undefined. Lines are written without holding up requests. */
export function openLog(level: LogLevel, clock: Pick<Clock, 'wallNow' | 'after' | 'realMs'>, file?: string): Log {
  const sink = destination({ dest: file ?? 1, sync: false, mkdir: file !== undefined })
  // A full disk or a closed pipe must not take the proxy down with it; metrics go on counting.
  sink.on('error', () => undefined)
  const logger: Logger = pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime, formatters: { level: (label) => ({ level: label }) } }, sink)
  const requestLines = logger.isLevelEnabled('info')

  // A line by way of pino costs more than a cache hit, and so does a write of its own: request lines are put together
  // here and leave together a moment later.
  let batch = ''
  let latest = { at: 0, text: '' }
  function append(line: string): void {
    if (batch === '') clock.after(GATHER_MS / clock.realMs(1), emit)
    batch += line
    if (batch.length > FULL_BATCH) emit()
  }
  function emit(): void {
    if (batch === '') return
    const lines = batch
    batch = ''
    sink.write(lines)
  }
  function isoTime(): string {
    const at = clock.wallNow()
    if (at !== latest.at) latest = { at, text: new Date(at).toISOString() }
    return latest.text
  }

  function write(event: Event): void {
    switch (event.kind) {
      case 'request':
        if (requestLines) append(requestLine(event, isoTime()))
        break
      case 'token-request': {
        const { kind: _, ...rest } = event
        const line = { ...rest, durationMs: Math.round(event.durationMs) }
        if (event.result === 'success') logger.info(line, 'token request')
        else logger.warn(line, 'token request')
        break
      }
      case 'breaker':
        logger.warn({ upstream: event.upstream, state: event.state }, 'breaker')
        break
      case 'gate':
        logger.info({ upstream: event.upstream, until: new Date(event.until) }, 'the provider asked for a pause')
        break
      case 'retry':
        logger.debug({ upstream: event.upstream, reason: event.reason, waitMs: Math.round(event.waitMs) }, 'retry')
        break
      case 'auth-error':
        logger.warn({ upstream: event.upstream, credential: event.credential, status: event.status, challenge: event.challenge }, 'authorization refused')
        break
      case 'credential-latched':
        logger.error({ credential: event.credential, error: event.error }, 'the token service refused this credential; it is not used again until it changes')
        break
      case 'warning':
        logger.warn({ about: event.about }, event.message)
        break
      case 'config-reload':
        logger.info({ result: event.result }, 'configuration reload')
        break
      default:
        break
    }
  }

  function flush(): void {
    emit()
    try {
      sink.flushSync()
    } catch (error) {
      // standard output is gone (a closed pipe): there is nobody left to tell
      if (!(error instanceof Error)) throw error
    }
  }
  // a fault nobody foresaw ends the process at once: what led to it must be there to read
  process.once('exit', flush)

  return {
    write,
    info: (message, details) => logger.info(details ?? {}, message),
    warn: (message, details) => logger.warn(details ?? {}, message),
    error: (message, details) => logger.error(details ?? {}, message),
    close() {
      process.off('exit', flush)
      flush()
    }
  }
}

// put together by hand, in the order a reader looks for things; names and templates of the config are the only free text
function requestLine(event: Extract<Event, { kind: 'request' }>, time: string): string {
  const problem = event.problem === undefined ? '' : `,"problem":"${event.problem}"`
  const callerGone = event.callerGone ? ',"callerGone":true' : ''
  return (
    `{"level":"info","time":"${time}","id":"${event.id}","upstream":"${event.upstream}","operation":${JSON.stringify(event.operation)},` +
    `"method":${JSON.stringify(event.method)},"status":${event.status},"source":"${event.source}","attempts":${event.attempts},` +
    `"durationMs":${tenths(event.durationMs)},"upstreamMs":${tenths(event.upstreamMs)},"waitMs":${tenths(event.waitMs)},` +
    `"tokenMs":${tenths(event.tokenMs)}${problem}${callerGone},"msg":"request"}\n`
  )
}

function tenths(ms: number): number {
  return Math.round(ms * 10) / 10
}
