import type { Fields } from './call.ts'

/**
 * A fault to order: `POST /faults` with these members. `status` answers it (with `retryAfter` seconds, or `date:SECONDS`
 * for an HTTP date), `reset-before-header` resets before the operation is carried out, `reset-after-read` after it,
 * `hang` never answers, `slow-body` drips, `truncate` ends half way, `delay` answers late, `garbage` is not HTTP,
 * `revoke-token` voids every token of the provider at once.
 */
export const FAULT_KINDS = ['status', 'reset-before-header', 'reset-after-read', 'hang', 'slow-body', 'truncate', 'delay', 'garbage', 'revoke-token'] as const
export type FaultKind = (typeof FAULT_KINDS)[number]

export type Fault = {
  readonly id: number
  readonly provider: string
  readonly kind: FaultKind
  /** `METHOD /path/*` (`*` a segment, `**` the rest), or `token` for the token endpoint. Absent: every API call. */
  readonly match: string | undefined
  readonly status: number
  readonly retryAfter: string | undefined
  readonly body: string | undefined
  readonly fields: Fields
  /** Provider milliseconds for `delay` and between two bytes of `slow-body`. */
  readonly delayMs: number
  /** How often it still strikes; `Infinity` until it is removed. */
  times: number
}

export type Faults = {
  /** Parses and arms a fault; throws a sentence for the person who asked. */
  add(input: unknown, providers: readonly string[]): Fault
  /** The fault that strikes this request, if any; uses it up by one. */
  strike(provider: string, method: string, path: string): Fault | undefined
  list(): readonly Fault[]
  clear(id?: number): void
}

const MOST_FAULTS = 1000

export function createFaults(): Faults {
  let faults: Fault[] = []
  let lastId = 0
  return {
    add(input, providers) {
      if (faults.length >= MOST_FAULTS) throw new Error('too many faults, DELETE /faults first')
      const fault = parse(input, ++lastId, providers)
      if (fault.kind !== 'revoke-token') faults.push(fault)
      return fault
    },
    strike(provider, method, path) {
      const fault = faults.find((armed) => armed.provider === provider && matches(armed.match, method, path))
      if (fault === undefined) return undefined
      fault.times--
      if (fault.times <= 0) faults = faults.filter((armed) => armed !== fault)
      return fault
    },
    list: () => faults,
    clear(id) {
      faults = id === undefined ? [] : faults.filter((fault) => fault.id !== id)
    }
  }
}

const MEMBERS = ['provider', 'kind', 'match', 'status', 'retryAfter', 'body', 'fields', 'delay', 'times']

function parse(input: unknown, id: number, providers: readonly string[]): Fault {
  if (typeof input !== 'object' || input === null) throw new Error('a fault is a JSON object')
  const members = new Map<string, unknown>(Object.entries(input))
  const strange = [...members.keys()].find((name) => !MEMBERS.includes(name))
  if (strange !== undefined) throw new Error(`unknown member ${strange}; a fault has ${MEMBERS.join(', ')}`)
  const provider = members.get('provider')
  const kind = FAULT_KINDS.find((known) => known === members.get('kind'))
  if (typeof provider !== 'string' || !providers.includes(provider)) throw new Error(`provider is one of ${providers.join(', ')}`)
  if (kind === undefined) throw new Error(`kind is one of ${FAULT_KINDS.join(', ')}`)
  const status = numberOf(members.get('status'), 503, 'status')
  if (status < 200 || status > 599) throw new Error('status is between 200 and 599')
  const times = members.get('times') === 'always' ? Infinity : numberOf(members.get('times'), 1, 'times')
  const retryAfter = members.get('retryAfter')
  const body = members.get('body')
  const match = members.get('match')
  const fields = members.get('fields')
  return {
    id,
    provider,
    kind,
    status,
    times,
    match: wordOf(match, 'match'),
    retryAfter: wordOf(retryAfter, 'retryAfter'),
    body: body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body),
    fields: typeof fields === 'object' && fields !== null ? Object.entries(fields).map(([name, value]) => [name, String(value)] as const) : [],
    delayMs: numberOf(members.get('delay'), 1, 'delay') * 1000
  }
}

function wordOf(value: unknown, name: string): string | undefined {
  if (value === undefined || typeof value === 'string') return value
  if (typeof value === 'number') return String(value)
  throw new Error(`${name} is a string`)
}

function numberOf(value: unknown, byDefault: number, name: string): number {
  if (value === undefined) return byDefault
  if (typeof value !== 'number' || !Number.isFinite(value) || value < 0) throw new Error(`${name} is a number`)
  return value
}

/** `path` is `token` for the token endpoint, which only a match of that name reaches. */
function matches(match: string | undefined, method: string, path: string): boolean {
  if (path === 'token' || match === 'token') return path === match
  if (match === undefined) return true
  const [first = '', second] = match.split(' ')
  const [wantedMethod, template] = second === undefined ? [undefined, first] : [first, second]
  if (wantedMethod !== undefined && wantedMethod !== method) return false
  const pattern = template.split('/').map((part) => (part === '**' ? '.*' : part === '*' ? '[^/]+' : part.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`)))
  return new RegExp(`^${pattern.join('/')}$`).test(path)
}
