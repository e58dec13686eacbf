/**
 * A replica of its own: opens one credential on a shared state file and prints what it gets, a line per wish:
 * `node token-child.ts STATE OPTIONS WISHES PAUSE_MS [REFRESH_TOKEN [SPEED]]`; OPTIONS is a decoded credential in JSON, without its secrets.
 */
import { systemClock } from '../../src/exchange/clock.ts'
import { fingerprint, Secret, type SecretSource } from '../../src/exchange/secret.ts'
import { openStore } from '../../src/state/open-store.ts'
import { openCredentials } from '../../src/tokens/credentials.ts'
import { tokenFetch } from '../../src/transport/token-fetch.ts'

const [state = '', options = '', wishes = '1', pauseMs = '0', refreshToken, speed = '1'] = process.argv.slice(2)
const clock = systemClock(Number(speed))
const tools = { clock, random: Math.random, report: () => {} }
const store = await openStore(state, tools)
const fixed = (secret: Secret): SecretSource => ({ reference: '${X}', read: () => secret })
const credential = {
  ...JSON.parse(options),
  clientSecret: fixed(new Secret('client-secret-1')),
  ...(refreshToken === undefined ? {} : { refreshToken: fixed(new Secret(refreshToken)) })
}
const credentials = await openCredentials({ a: credential }, { ...tools, store, version: '1.2.3', tokenFetch: tokenFetch() })
process.stdout.write('open\n')
for (let wish = 0; wish < Number(wishes); wish++) {
  try {
    const authorization = await credentials.get('a')?.authorize({ method: 'GET', url: 'http://localhost/', target: '/' }, new AbortController().signal)
    process.stdout.write(`token ${fingerprint(authorization?.fields[1] ?? '')}\n`)
  } catch (error) {
    process.stdout.write(`problem ${error instanceof Error && 'code' in error ? `${String(error.code)} ${error.message}` : String(error)}\n`)
  }
  await clock.sleep(Number(pauseMs))
}
await credentials.close()
await store.close()
process.exit(0)
