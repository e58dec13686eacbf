import { NO_REQUEST_CONTROL, requestControl, type RequestControl } from '../../http/cache-control.ts'
import { isNamed, type Fields } from '../../http/fields.ts'

/** What in a request concerns the cache. */
export type Asked = {
  readonly control: RequestControl
  /** `If-None-Match` or `If-Modified-Since`: the caller holds an answer of its own. */
  readonly isConditional: boolean
  /** `Range`. */
  readonly isPartial: boolean
  /** `If-Match` or `If-Unmodified-Since`: only the origin may judge these (RFC 9111 §4.3.2). */
  readonly isForOrigin: boolean
  readonly ifRange: string | undefined
  readonly range: string | undefined
  /** Credentials of the app's own, where they are let through. */
  readonly authorization: string | undefined
  readonly cookie: string | undefined
}

/** A request that asks for nothing special, the usual one: shared, so that reading it costs nothing. */
export const PLAIN: Asked = {
  control: NO_REQUEST_CONTROL,
  isConditional: false,
  isPartial: false,
  isForOrigin: false,
  ifRange: undefined,
  range: undefined,
  authorization: undefined,
  cookie: undefined
}

/** Reads in one pass over the names what a request asks of the cache. */
export function askedOf(fields: Fields): Asked {
  let asked: { -readonly [Member in keyof Asked]: Asked[Member] } | undefined
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string
    const value = fields[i + 1] as string
    // the length of a name rules out nearly all others without comparing
    switch (name.length) {
      case 5:
        if (isNamed(name, 'range')) asked = { ...(asked ?? PLAIN), range: listed(asked?.range, value), isPartial: true }
        break
      case 6:
        if (isNamed(name, 'cookie')) asked = { ...(asked ?? PLAIN), cookie: joined(asked?.cookie, value) }
        else if (isNamed(name, 'pragma')) asked = { ...(asked ?? PLAIN), control: requestControl(fields) }
        break
      case 8:
        if (isNamed(name, 'if-match')) asked = { ...(asked ?? PLAIN), isForOrigin: true }
        else if (isNamed(name, 'if-range')) asked = { ...(asked ?? PLAIN), ifRange: listed(asked?.ifRange, value) }
        break
      case 13:
        if (isNamed(name, 'cache-control')) asked = { ...(asked ?? PLAIN), control: requestControl(fields) }
        else if (isNamed(name, 'authorization')) asked = { ...(asked ?? PLAIN), authorization: joined(asked?.authorization, value) }
        else if (isNamed(name, 'if-none-match')) asked = { ...(asked ?? PLAIN), isConditional: true }
        break
      case 17:
        if (isNamed(name, 'if-modified-since')) asked = { ...(asked ?? PLAIN), isConditional: true }
        break
      case 19:
        if (isNamed(name, 'if-unmodified-since')) asked = { ...(asked ?? PLAIN), isForOrigin: true }
        break
      default:
    }
  }
  return asked ?? PLAIN
}

// Several lines read as one (RFC 9110 §5.3): for a field that may have one value only that is one nobody takes for valid.
function listed(earlier: string | undefined, value: string): string {
  return earlier === undefined ? value : `${earlier}, ${value}`
}

function joined(earlier: string | undefined, value: string): string {
  return earlier === undefined ? value : `${earlier.length}:${earlier},${value}`
}
