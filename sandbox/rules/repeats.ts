import { createHash } from 'node:crypto'
import { field, isRepeatable, type Bench, type Call, type Rule } from '../call.ts'

export type RepeatRuleOptions = {
  /** A POST or PATCH that may have been carried out, sent again. */
  readonly duplicate: string
  /** A call the provider turned down as wrong, sent again unchanged. */
  readonly stubborn: string
}

type Memory = { at: number; kind: 'done' | 'refused'; status: number; token: string | undefined }

const DUPLICATE_WINDOW_MS = 600_000
const STUBBORN_WINDOW_MS = 10_000
const MOST_REMEMBERED = 10_000
const WRONG = [400, 401, 403, 409, 413, 415, 422]

/** Two calls are the same when client, user, method, target, tenant and body are. */
export function callKey(call: Call): string {
  const body = call.body.length === 0 ? '' : createHash('sha256').update(call.body).digest('base64url')
  return [call.client, call.token?.subject ?? '', call.method, call.target, field(call.fields, 's4-tenantid') ?? '', body].join('\n')
}

/** No operation with effects is sent twice, no refused one is sent again as it was. */
export function repeats(options: RepeatRuleOptions, bench: Bench): Rule {
  const memories = new Map<string, Memory>()

  function remember(call: Call, memory: Memory): void {
    const oldest = memories.keys().next().value
    if (memories.size >= MOST_REMEMBERED && oldest !== undefined) memories.delete(oldest)
    memories.set(callKey(call), memory)
  }

  return {
    arrived(call) {
      const memory = memories.get(callKey(call))
      if (memory === undefined) return
      const what = `${call.method} ${call.operation?.template ?? 'unknown'}`
      const age = call.at - memory.at
      if (memory.kind === 'done' && age < DUPLICATE_WINDOW_MS)
        bench.note(options.duplicate, 'S1', call.client, `${what} sent again although it may have been carried out`)
      if (memory.kind === 'refused' && age < STUBBORN_WINDOW_MS && (memory.status !== 401 || memory.token === call.token?.fingerprint)) {
        bench.note(options.stubborn, 'S2', call.client, `${what} sent again unchanged after ${memory.status}`)
      }
    },
    answered(call, answer, processed) {
      const now = bench.clock.now()
      // a read turned down may well be another user's, asked again
      if (WRONG.includes(answer.status)) {
        if (call.method !== 'GET' && call.method !== 'HEAD') remember(call, { at: now, kind: 'refused', status: answer.status, token: call.token?.fingerprint })
      }
      // a 500 may come from the middle of the work
      else if (!isRepeatable(call) && (processed || answer.status === 500)) remember(call, { at: now, kind: 'done', status: answer.status, token: undefined })
    },
    dropped(call) {
      // dropped before or after the work: the caller cannot know, so it has to take it as done
      if (!isRepeatable(call)) remember(call, { at: bench.clock.now(), kind: 'done', status: 0, token: undefined })
    },
    forget: () => memories.clear()
  }
}
