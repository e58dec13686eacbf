import { DAY_MS, day } from './expiry.ts'
import { activateNext, addKey, listKeys, markProven } from './key-folder.ts'
import { makeKeyPair } from './key-pair.ts'
import { KeyFolderError, type KeyAlgorithm, type KeyRecord, type PublicHalf } from './key-record.ts'
import type { Proof } from './prove.ts'

/** A pair just made: where it is, and what to show of it. */
export type MadeKey = { readonly folder: string; readonly publicHalf: PublicHalf }

// What a provider needs to take over a public key.
const ACTIVATE_AFTER_MS = 14 * DAY_MS

/** The first key of a client, active at once. Throws `KeyFolderError` where there is one. */
export async function firstKey(parent: string, options: { name: string; alg: KeyAlgorithm; days: number; now: number }): Promise<MadeKey> {
  const { publicHalf, ...pair } = await makeKeyPair(options)
  return { folder: addKey(parent, options.name, { publicHalf, ...pair }, { state: 'active' }), publicHalf }
}

export type Overlap = MadeKey & { readonly active: KeyRecord; readonly activateAt: number }

/**
 * The next key beside the active one, of the same algorithm unless another is given: from now on the provider should know both.
 * It may take over from `activateAt` on, in 14 days unless given. Throws `KeyFolderError`.
 */
export async function beginOverlap(
  parent: string,
  options: { name: string; alg?: KeyAlgorithm | undefined; days: number; now: number; activateAt?: number | undefined }
): Promise<Overlap> {
  const { name, days, now, activateAt = now + ACTIVATE_AFTER_MS } = options
  const active = (await listKeys(parent, name)).find((key) => key.state === 'active')
  if (active === undefined) throw new KeyFolderError(`${name} has no key yet, make one with attache keys new`)
  const pair = await makeKeyPair({ name, days, now, alg: options.alg ?? active.alg ?? 'RS256' })
  return { folder: addKey(parent, name, pair, { state: 'next', activateAt }), publicHalf: pair.publicHalf, active, activateAt }
}

/**
 * The next key takes over and the active one is put aside: only after its activation date (`early` overrides), and only
 * once a token was granted with it, which `prove` finds out unless it is on record (undefined: taken on the operator's word).
 * Throws `KeyFolderError`; then nothing has changed.
 */
export async function endOverlap(
  parent: string,
  options: { name: string; now: number; early: boolean; prove: ((active: KeyRecord, next: KeyRecord) => Promise<Proof>) | undefined }
): Promise<{ readonly active: KeyRecord; readonly retired: KeyRecord; readonly retiredTo: string }> {
  const { name, now, early, prove } = options
  const keys = await listKeys(parent, name)
  const [active, next] = [keys.find((key) => key.state === 'active'), keys.find((key) => key.state === 'next')]
  if (active === undefined || next === undefined) throw new KeyFolderError(`${name} has no next key, make one with attache keys rotate`)
  if (next.expiresAt <= now) throw new KeyFolderError(`the next key of ${name} ended on ${day(next.expiresAt)} itself, delete it and rotate again`)
  if (next.activateAt !== undefined && now < next.activateAt && !early) {
    throw new KeyFolderError(`the next key of ${name} takes over from ${day(next.activateAt)} on; say --early where the provider has it already`)
  }
  if (next.provenAt === undefined && prove !== undefined) {
    const proof = await prove(active, next)
    if (proof.kind === 'refused') throw new KeyFolderError(`the next key of ${name} is not proven, the active one stays: ${proof.reason}`)
    markProven(next, now)
  }
  const retiredTo = activateNext(parent, name)
  return { active: { ...next, state: 'active' }, retired: { ...active, state: 'retired', folder: retiredTo }, retiredTo }
}
