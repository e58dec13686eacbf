import { createHash } from 'node:crypto'
import type { Request } from '../../exchange/message.ts'
import { fieldList } from '../../http/fields.ts'
import type { Asked } from './asked.ts'
import type { CacheOptions } from './options.ts'

export type Keys = {
  keyOf(request: Request, asked: Asked): string
  flightKeyOf(request: Request, key: string): string
}

/**
 * Under what answers are stored and shared. Every part but the last has its length in front, so that no two different
 * lists of parts give the same key; there is one store per upstream, so the upstream is no part.
 */
export function keys(options: CacheOptions, identityOf: (credential: string | undefined, target: string) => string): Keys {
  const selecting = options.vary.map((name) => name.toLowerCase())

  /**
   * All that decides who may get an answer, apart from selecting fields. Credentials of the app's own, where they are let
   * through, are part of it unless the cache plays a shared one: RFC 9111 §3.5 decides there.
   */
  function keyOf(request: Request, asked: Asked): string {
    const identity = identityOf(request.credential, request.target)
    const hasOwn = options.mode === 'private' && (asked.authorization !== undefined || asked.cookie !== undefined)
    const own = hasOwn ? fingerprint([asked.authorization, asked.cookie]) : ''
    return `${identity.length}:${identity}${own.length}:${own}${request.target}`
  }

  /** The same with the fields answers are known to depend on: only requests equal in these wait for one another. */
  function flightKeyOf(request: Request, key: string): string {
    let sum = key
    for (const name of selecting) {
      const value = fieldList(request.fields, name) ?? ''
      sum = `${value.length}:${value}${sum}`
    }
    return sum
  }

  return { keyOf, flightKeyOf }
}

/** Where answers to HEAD are kept: they have no content for GET. No key of `keyOf` begins with a letter. */
export function headKey(key: string): string {
  return `H${key}`
}

/** Where everything is kept that was answered to one identity about one target, given either key. */
export function bothKeys(key: string): readonly [get: string, head: string] {
  const get = key.startsWith('H') ? key.slice(1) : key
  return [get, headKey(get)]
}

// A credential must not be readable in a key; an empty one is not the same as none.
function fingerprint(parts: readonly (string | undefined)[]): string {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(`${part?.length ?? ''}:`).update(part ?? '', 'latin1')
  return hash.digest('base64')
}
