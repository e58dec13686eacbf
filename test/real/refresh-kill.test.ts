import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { child } from '../support/child.ts'
import { origin } from '../support/origin.ts'
import { credential } from '../support/token-service.ts'

const CHILD = join(import.meta.dirname, '../support/token-child.ts')

const cleanUps: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).toReversed()) await cleanUp()
})

/** When a life ends: the refresh token has arrived, its successor is on the way back, the access token is in use. */
type Moment = 'asked' | 'answered' | 'in use'

/**
 * Lives one after the other on one state, each killed at that moment or when its sign-in has ended; the refresh tokens a
 * service without grace has seen. A life that is killed while it asks leaves a pause behind, which must not be what keeps
 * the next one from asking: time runs faster for them.
 */
async function seenIn(moment: Moment, lives: number): Promise<string[]> {
  const seen: string[] = []
  let reached = Promise.withResolvers<void>()
  const server = await origin((received, response) => {
    seen.push(new URLSearchParams(received.body.toString()).get('refresh_token') ?? '')
    if (moment === 'asked') return reached.resolve()
    if (moment === 'answered') response.on('finish', () => reached.resolve())
    response.end(JSON.stringify({ access_token: `token-${seen.length}`, token_type: 'Bearer', expires_in: 1, refresh_token: `refresh-${seen.length}` }))
  })
  cleanUps.push(() => server.close())
  const folder = mkdtempSync(join(tmpdir(), 'attache-refresh-'))
  cleanUps.push(() => rmSync(folder, { recursive: true, force: true }))
  const { clientSecret: _secret, ...options } = credential({ grant: 'refresh_token', tokenUrl: `${server.url}/token` })
  for (let life = 0; life < lives; life++) {
    reached = Promise.withResolvers<void>()
    const [pauseMs, speed] = moment === 'in use' ? ['20', '1'] : ['2000', '100']
    const one = child(CHILD, [`sqlite:${join(folder, 'attache.db')}`, JSON.stringify(options), '10000', pauseMs, 'refresh-0', speed])
    cleanUps.push(() => one.kill('SIGKILL'))
    const used = one.line(moment === 'in use' ? /^token|^problem/ : /^problem credential-rejected/)
    // who is killed prints no more: that must not count as a rejection nobody handled
    const settled = Promise.allSettled([used])
    await Promise.race(moment === 'in use' ? [used] : [reached.promise, used])
    one.kill('SIGKILL')
    await Promise.all([one.ended, settled])
  }
  return seen
}

describe('a one-time refresh token, over kill -9', () => {
  test('is stored before its access token is used: every life goes on where the last one was', { timeout: 120_000 }, async () => {
    const seen = await seenIn('in use', 4)
    console.log(`kill -9 with the token in use, 4 lives: ${seen.join(', ')}`)
    expect(seen.length).toBeGreaterThan(1)
    expect(seen).toEqual(seen.map((_token, index) => `refresh-${index}`))
  })

  test.each<Moment>(['asked', 'answered'])('is never sent twice, whatever became of it: killed when %s', { timeout: 120_000 }, async (moment) => {
    const seen = await seenIn(moment, 3)
    console.log(`kill -9 when ${moment}, 3 lives: ${seen.join(', ')}`)
    expect(seen[0]).toBe('refresh-0')
    expect(new Set(seen).size).toBe(seen.length)
  })
})
