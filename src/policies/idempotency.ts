import type { Signal } from '../exchange/signal.ts'
import { createHash } from 'node:crypto'
import type { Policy, Send } from '../exchange/chain.ts'
import { collect } from '../exchange/collect.ts'
import { payloadFingerprint, reusedKey } from '../exchange/idempotency-key.ts'
import type { Request, Response } from '../exchange/message.ts'
import { packRecord, unpackRecord } from '../exchange/record.ts'
import type { UpstreamTools } from '../exchange/tools.ts'
import { field } from '../http/fields.ts'
import { open, seal } from '../state/seal.ts'
import type { Store } from '../state/store.ts'

const KEEP_MS = 24 * 3_600_000
const LONGEST_ANSWER_BYTES = 1024 * 1024
/** What one upstream may keep in a day; beyond it answers pass through without being kept. */
const DAILY_BYTES = 256 * 1024 * 1024
/** Another replica that holds a key longer than this is taken for dead. */
const REPLICA_LOCK_MS = 60_000
const REPLICA_POLL_MS = 250

const SAFE_METHODS = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'QUERY'])
// Says nothing final about the payload: worth sending again (RFC 9110 §15.5), or the credential's fault.
const PASSING_STATUSES = new Set([401, 408, 409, 421, 425, 429])

type Kept = { readonly fingerprint: string; readonly response: Response }

/**
 * The app's side of `Idempotency-Key`: within 24 h the same key and payload get the same answer without asking the
 * provider, another payload gets 422 (`bad-request`), a duplicate of a call under way waits for it.
 *
 * Only final answers are kept (2xx, 4xx that speak of the payload; up to 1 MiB, sealed): after a failure or an unknown
 * outcome the same key may be sent again. Bodies too large to be replayed pass without any of it.
 */
export function idempotency(tools: UpstreamTools & { store: Store; sealKey: Buffer }): Policy {
  const { upstream, store, sealKey, clock, report } = tools
  // keys under way in this process, with the payload they were sent with
  const underWay = new Map<string, { fingerprint: string; done: Promise<void> }>()

  return function idempotency(request, next) {
    const key = request.wishes.idempotencyKey
    if (key === undefined || key === '' || SAFE_METHODS.has(request.method) || request.body.kind === 'stream') return next(request)
    return once(key, request, next)
  }

  async function once(key: string, request: Request, next: Send): Promise<Response> {
    const id = recordKey(request, key)
    const fingerprint = payloadFingerprint(request)
    let hasWaited = false
    for (let first = underWay.get(id); first !== undefined; first = underWay.get(id)) {
      if (first.fingerprint !== fingerprint) throw reusedKey()
      hasWaited = true
      await unlessAborted(first.done, request.signal)
    }
    const { promise, resolve } = Promise.withResolvers<void>()
    underWay.set(id, { fingerprint, done: promise })
    try {
      return await inTurn(id, fingerprint, request, next, hasWaited)
    } finally {
      underWay.delete(id)
      resolve()
    }
  }

  async function inTurn(id: string, fingerprint: string, request: Request, next: Send, hasWaited: boolean): Promise<Response> {
    if (store.kind !== 'redis') return (await recalled(id, fingerprint, hasWaited)) ?? (await sendAndKeep(id, fingerprint, request, next))
    // replicas share the store: one of them sends, the others look for its answer
    for (;;) {
      const answer = await recalled(id, fingerprint, hasWaited)
      if (answer !== undefined) return answer
      const lock = await store.lock(id, REPLICA_LOCK_MS)
      if (lock !== undefined) {
        try {
          // the other replica may have finished between our look and its release
          return (await recalled(id, fingerprint, hasWaited)) ?? (await sendAndKeep(id, fingerprint, request, next))
        } finally {
          await lock.release()
        }
      }
      hasWaited = true
      await clock.sleep(REPLICA_POLL_MS * (1 + tools.random()), request.signal)
    }
  }

  async function recalled(id: string, fingerprint: string, hasWaited: boolean): Promise<Response | undefined> {
    const sealed = await store.get(id)
    const kept = sealed === undefined ? undefined : keptOf(open(sealKey, sealed, id))
    if (kept === undefined) return undefined
    if (kept.fingerprint !== fingerprint) throw reusedKey()
    report({ kind: 'call-avoided', upstream, reason: hasWaited ? 'collapsed' : 'cache' })
    return { ...kept.response, source: hasWaited ? 'collapsed' : 'cache' }
  }

  async function sendAndKeep(id: string, fingerprint: string, request: Request, next: Send): Promise<Response> {
    const answer = await next(request)
    if (!isFinal(answer)) return answer
    const response = { ...answer, body: await collect(answer.body, LONGEST_ANSWER_BYTES) }
    if (response.body.kind === 'stream') return response
    const bytes = response.body.kind === 'bytes' ? response.body.bytes : Buffer.alloc(0)
    const head = { fingerprint, status: response.status, fields: response.fields }
    try {
      const today = await store.add(`idempotency-bytes/${upstream}`, bytes.length, KEEP_MS)
      // durable before the caller sees it: a crash in between must not make the same key act twice
      if (today <= DAILY_BYTES) await store.put(id, seal(sealKey, packRecord(head, bytes), id), { ttlMs: KEEP_MS })
    } catch (error) {
      report({
        kind: 'warning',
        about: upstream,
        message: `the answer to an Idempotency-Key could not be kept: ${error instanceof Error ? error.name : 'error'}`
      })
    }
    return response
  }

  // with `credential: none` the app's own credential tells callers apart
  function recordKey(request: Request, key: string): string {
    const parts = [request.credential ?? '', field(request.fields, 'authorization') ?? '', key]
    return `idempotency/${upstream}/${createHash('sha256').update(JSON.stringify(parts)).digest('hex')}`
  }
}

function isFinal({ status, source, fields }: Response): boolean {
  if (source !== 'upstream') return false
  if ((field(fields, 'content-type') ?? '').toLowerCase().startsWith('text/event-stream')) return false
  return (status >= 200 && status < 300) || (status >= 400 && status < 500 && !PASSING_STATUSES.has(status))
}

function keptOf(record: Buffer | undefined): Kept | undefined {
  const parts = record === undefined ? undefined : unpackRecord(record)
  if (parts === undefined) return undefined
  const head = parts.head as { fingerprint: string; status: number; fields: string[] }
  const body: Response['body'] = parts.bytes.length === 0 ? { kind: 'none' } : { kind: 'bytes', bytes: parts.bytes }
  return { fingerprint: head.fingerprint, response: { status: head.status, fields: head.fields, body, source: 'cache' } }
}

/** Waits for something that belongs to others; an abort ends the wait only. */
function unlessAborted(done: Promise<void>, signal: Signal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason)
    const leave = (): void => reject(signal.reason)
    signal.addEventListener('abort', leave, { once: true })
    void done.then(() => {
      signal.removeEventListener('abort', leave)
      resolve()
    })
    return undefined
  })
}
