import { destination, pino, type Logger } from 'pino'
import type { Event } from '../exchange/events.ts'

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'silent'

/** One JSON object a line on standard output: one line per request, one per token request, and what an operator must know. */
export type Log = {
  write(event: Event): void
  info(message: string, details?: Readonly<Record<string, unknown>>): void
  warn(message: string, details?: Readonly<Record<string, unknown>>): void
  error(message: string, details?: Readonly<Record<string, unknown>>): void
  flush(): void
}

/** Opens the log; `file` is a path, standard output when undefined. Lines are written without holding up requests. */
export function openLog(level: LogLevel, file?: string): Log {
  const sink = destination({ dest: file ?? 1, sync: false, mkdir: file !== undefined })
  // A full disk or a closed pipe must not take the proxy down with it; metrics go on counting.
  sink.on('error', () => undefined)
  const logger: Logger = pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime, formatters: { level: (label) => ({ level: label }) } }, sink)
  const requestLines = logger.isLevelEnabled('info')

  function write(event: Event): void {
    switch (event.kind) {
      case 'request':
        if (requestLines) logger.info(requestLine(event), 'request')
        break
      case 'token-request': {
        const { kind: _, ...line } = event
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

  return {
    write,
    info: (message, details) => logger.info(details ?? {}, message),
    warn: (message, details) => logger.warn(details ?? {}, message),
    error: (message, details) => logger.error(details ?? {}, message),
    flush() {
      try {
        sink.flushSync()
      } catch (error) {
        // standard output is gone (a closed pipe): there is nobody left to tell
        if (!(error instanceof Error)) throw error
      }
    }
  }
}

function requestLine(event: Extract<Event, { kind: 'request' }>): Record<string, unknown> {
  return {
    id: event.id,
    upstream: event.upstream,
    operation: event.operation,
    method: event.method,
    status: event.status,
    source: event.source,
    attempts: event.attempts,
    durationMs: tenths(event.durationMs),
    upstreamMs: tenths(event.upstreamMs),
    waitMs: tenths(event.waitMs),
    tokenMs: tenths(event.tokenMs),
    problem: event.problem,
    callerGone: event.callerGone ? true : undefined
  }
}

function tenths(ms: number): number {
  return Math.round(ms * 10) / 10
}
