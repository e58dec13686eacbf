import { parseDictionary } from 'structured-headers'
import { deltaSeconds, fieldNames, parseDirectives, type Directives } from './directives.ts'
import { fieldList, hasField, type Fields } from './fields.ts'

/** What an answer says about storing and reusing it (RFC 9111 §5.2.2, RFC 5861, RFC 8246). Times in seconds. */
export type ResponseControl = {
  readonly isNoStore: boolean
  /** The unqualified form: validate before every use. */
  readonly isNoCache: boolean
  /** The qualified form: only these fields (lower case) must not be reused. */
  readonly noCacheFields: readonly string[]
  readonly isPrivate: boolean
  readonly privateFields: readonly string[]
  readonly isPublic: boolean
  readonly isMustRevalidate: boolean
  readonly isProxyRevalidate: boolean
  readonly isMustUnderstand: boolean
  readonly isImmutable: boolean
  readonly maxAgeS: number | undefined
  readonly sharedMaxAgeS: number | undefined
  readonly staleWhileRevalidateS: number | undefined
  readonly staleIfErrorS: number | undefined
  /** From a targeted field (RFC 9213 §2.2): `Expires` counts for nothing then. */
  readonly isTargeted: boolean
}

/** What a caller asks of a cache (RFC 9111 §5.2.1, RFC 5861 §4). Times in seconds; `maxStaleS` is Infinity without a value. */
export type RequestControl = {
  readonly isNoStore: boolean
  readonly isNoCache: boolean
  readonly isOnlyIfCached: boolean
  readonly maxAgeS: number | undefined
  readonly maxStaleS: number | undefined
  readonly minFreshS: number | undefined
  readonly staleIfErrorS: number | undefined
}

export const NO_REQUEST_CONTROL: RequestControl = {
  isNoStore: false,
  isNoCache: false,
  isOnlyIfCached: false,
  maxAgeS: undefined,
  maxStaleS: undefined,
  minFreshS: undefined,
  staleIfErrorS: undefined
}

/**
 * The targeted fields (RFC 9213) this cache obeys instead of `Cache-Control`, first valid one wins. A sidecar is no CDN,
 * so `CDN-Cache-Control` only speaks to it where it plays a shared cache.
 */
export const TARGETED_FIELDS = { private: ['attache-cache-control'], shared: ['attache-cache-control', 'cdn-cache-control'] } as const

/**
 * Reads the directives of an answer that hold for a cache of this mode: those of the first valid targeted field, else
 * `Cache-Control`. Of several values for one directive the most restrictive holds (RFC 9111 §4.2.1).
 */
export function responseControl(fields: Fields, mode: 'private' | 'shared'): ResponseControl {
  for (const name of TARGETED_FIELDS[mode]) {
    const directives = parseTargeted(fieldList(fields, name))
    if (directives !== undefined) return asResponseControl(directives, true)
  }
  return asResponseControl(parseDirectives(fieldList(fields, 'cache-control')), false)
}

// Providers say the same few things over and over.
const REMEMBERED_VALUES = 256
const LONGEST_REMEMBERED = 512

/** `responseControl` with a memory of what was read lately: reading a value costs more than all else a miss causes in the cache. */
export function controlReader(mode: 'private' | 'shared'): (fields: Fields) => ResponseControl {
  const remembered = new Map<string, ResponseControl>()
  // read once: a mode that comes from a file is no constant to V8, which would compile `read` for it again and again
  const targeted: readonly string[] = TARGETED_FIELDS[mode]

  return function read(fields) {
    if (targeted.some((name) => hasField(fields, name))) return responseControl(fields, mode)
    const said = fieldList(fields, 'cache-control') ?? ''
    const known = remembered.get(said)
    if (known !== undefined) return known
    const control = responseControl(fields, mode)
    if (said.length > LONGEST_REMEMBERED) return control
    if (remembered.size >= REMEMBERED_VALUES) remembered.clear()
    remembered.set(said, control)
    return control
  }
}

/** Reads what a caller asks; `Pragma: no-cache` counts where there is no `Cache-Control` (RFC 9111 §5.4). */
export function requestControl(fields: Fields): RequestControl {
  const text = fieldList(fields, 'cache-control')
  if (text === undefined) {
    const pragma = fieldList(fields, 'pragma')
    return pragma !== undefined && parseDirectives(pragma).all.has('no-cache') ? { ...NO_REQUEST_CONTROL, isNoCache: true } : NO_REQUEST_CONTROL
  }
  const { all } = parseDirectives(text)
  const maxStale = all.get('max-stale')
  return {
    isNoStore: all.has('no-store'),
    isNoCache: all.has('no-cache'),
    isOnlyIfCached: all.has('only-if-cached'),
    maxAgeS: smallest(all.get('max-age'), 0),
    maxStaleS: maxStale?.every((argument) => argument === undefined) ? Infinity : smallest(maxStale, 0),
    minFreshS: largest(all.get('min-fresh')),
    staleIfErrorS: smallest(all.get('stale-if-error'), 0)
  }
}

function asResponseControl({ all, malformed }: Directives, isTargeted: boolean): ResponseControl {
  const noCache = listed(all.get('no-cache'))
  const privacy = listed(all.get('private'))
  const control = {
    isNoStore: all.has('no-store'),
    isNoCache: noCache.isWhole,
    noCacheFields: noCache.names,
    isPrivate: privacy.isWhole,
    privateFields: privacy.names,
    // permissions hold only in the form they are defined in, prohibitions in any
    isPublic: !malformed && isBare(all.get('public')),
    isMustRevalidate: all.has('must-revalidate'),
    isProxyRevalidate: all.has('proxy-revalidate'),
    isMustUnderstand: all.has('must-understand'),
    isImmutable: !malformed && isBare(all.get('immutable')),
    // a lifetime that cannot be read is over (RFC 9111 §4.2.1)
    maxAgeS: smallest(all.get('max-age'), 0),
    sharedMaxAgeS: smallest(all.get('s-maxage'), 0),
    staleWhileRevalidateS: smallest(all.get('stale-while-revalidate'), 0),
    staleIfErrorS: smallest(all.get('stale-if-error'), 0),
    isTargeted
  }
  if (!malformed) return control
  return { ...control, maxAgeS: 0, sharedMaxAgeS: control.sharedMaxAgeS === undefined ? undefined : 0, staleWhileRevalidateS: 0, staleIfErrorS: 0 }
}

/** `no-cache` and `private` cover the whole answer, or the fields they list; a list that cannot be read covers everything. */
function listed(args: readonly (string | undefined)[] | undefined): { isWhole: boolean; names: readonly string[] } {
  if (args === undefined) return { isWhole: false, names: [] }
  const names: string[] = []
  for (const argument of args) {
    const list = argument === undefined ? undefined : fieldNames(argument)
    if (list === undefined) return { isWhole: true, names: [] }
    names.push(...list)
  }
  return { isWhole: false, names }
}

function isBare(args: readonly (string | undefined)[] | undefined): boolean {
  return args !== undefined && args.every((argument) => argument === undefined)
}

function smallest(args: readonly (string | undefined)[] | undefined, ifInvalid: number): number | undefined {
  return args === undefined ? undefined : Math.min(...args.map((argument) => deltaSeconds(argument) ?? ifInvalid))
}

function largest(args: readonly (string | undefined)[] | undefined): number | undefined {
  return args === undefined ? undefined : Math.max(...args.map((argument) => deltaSeconds(argument) ?? 0))
}

const SECONDS_DIRECTIVES = new Set(['max-age', 's-maxage', 'stale-while-revalidate', 'stale-if-error'])

/** A targeted field is a Structured Dictionary; empty, unreadable or with a value of the wrong type it is ignored (RFC 9213 §2.1). */
function parseTargeted(text: string | undefined): Directives | undefined {
  if (text === undefined || text.trim() === '') return undefined
  const all = new Map<string, (string | undefined)[]>()
  try {
    for (const [name, [value]] of parseDictionary(text)) {
      if (SECONDS_DIRECTIVES.has(name)) {
        if (typeof value !== 'number' || !Number.isInteger(value)) return undefined
        all.set(name, [String(value)])
      } else if (value === true) all.set(name, [undefined])
      else if (value !== false) all.set(name, [String(value)])
    }
  } catch {
    // The library throws on what is no Structured Field: an everyday input here, and the answer is to ignore the field.
    return undefined
  }
  return { all, malformed: false }
}
