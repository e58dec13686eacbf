import { InvalidArgumentError, Option, type Command } from 'commander'
import { systemClock, systemRandom } from '../exchange/clock.ts'
import type { Event } from '../exchange/events.ts'
import { VERSION } from '../package.ts'
import { openBrowser } from './open-browser.ts'
import { configCommand, configFile, type ConfigArguments } from './options.ts'
import { printEnvironment, printFindings } from './report.ts'

type LoginArguments = ConfigArguments & { readonly key?: string; readonly port?: number; readonly timeout: number; readonly open?: true }

const UNIT_MS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000 }

/** `attache login CREDENTIAL`: a person signs in with the browser, and the refresh token goes into the state. */
export function addLoginCommand(program: Command): void {
  configCommand(program, 'login', 'sign in for a refresh_token credential: authorization code with PKCE on a loopback redirect')
    .argument('<credential>', 'name of the credential')
    .option('--key <key>', 'whose token, for a credential with perKey')
    .option('--port <port>', 'where the browser comes back to on loopback; that of redirectUri by default, else any free one', parsePort)
    .addOption(new Option('--timeout <duration>', 'how long to wait for the person').argParser(parsePatience).default(300_000, '5m'))
    .option('--open', 'try to open the browser too')
    .addHelpText('after', '\nOn another machine than the browser’s, forward the port: ssh -L PORT:127.0.0.1:PORT HOST attache login … --port PORT')
    .action(async (name: string, args: LoginArguments, command: Command) => {
      process.exitCode = await login(name, configFile(command, args), args)
    })
}

async function login(name: string, file: string, args: LoginArguments): Promise<number> {
  const { environmentFindings } = await import('../config/environment.ts')
  const hazards = environmentFindings(process.env, process.execArgv)
  if (hazards.length > 0) return printEnvironment(hazards)
  const { loadConfig } = await import('../config/load.ts')
  const loaded = loadConfig(file, process.env, { speed: args.speed, expired: 'warn' })
  if (loaded.kind === 'refused') return printFindings(loaded.findings, loaded.warnings)
  const options = loaded.config.credentials[name]
  const known = Object.keys(loaded.config.credentials).join(', ')
  if (options === undefined) return refuse(`no credential ${name} in ${file}; there ${known === '' ? 'is none' : `are ${known}`}`)
  if (loaded.config.state === 'memory:') return refuse('state is memory:, which would forget the sign-in at once: use sqlite:PATH or redis://HOST')

  const { openStore } = await import('../state/open-store.ts')
  const { login: signIn } = await import('../tokens/login.ts')
  const { SignInError } = await import('../tokens/sign-in.ts')
  const { redirectListener } = await import('../server/redirect.ts')
  const { tokenFetch } = await import('../transport/token-fetch.ts')
  let isStateLost = false
  function report(event: Event): void {
    if (event.kind !== 'warning') return
    isStateLost ||= event.about === 'state'
    process.stderr.write(`warning: ${event.about}: ${event.message}\n`)
  }

  const clock = systemClock(args.speed)
  const tools = { clock, random: systemRandom, report }
  const store = await openStore(loaded.config.state, tools)
  try {
    if (isStateLost) return refuse('the state has to be usable first, or the sign-in would be forgotten')
    await signIn(
      name,
      options,
      { key: args.key, port: args.port, timeoutMs: args.timeout },
      {
        ...tools,
        store,
        version: VERSION,
        tokenFetch: tokenFetch(),
        openRedirect: redirectListener(clock),
        turnedAway: (why) => void process.stderr.write(`turned an answer away: ${why}\n`),
        show(url, redirectUri) {
          process.stdout.write(`Open this address in your browser and sign in:\n\n${url}\n\nWaiting at ${redirectUri} for ${args.timeout / 1000} s\n`)
          if (args.open) void openBrowser(url).then((isOpen) => isOpen || process.stderr.write('there is no browser to open here, open the address yourself\n'))
        }
      }
    )
    if (isStateLost) return refuse('signed in, but the state could not keep it: sign in again once it is back')
    process.stdout.write(`Signed in: credential ${name} renews its tokens by itself from now on.\n`)
    return 0
  } catch (error) {
    if (error instanceof SignInError) return refuse(error.message)
    throw error
  } finally {
    await store.close()
  }
}

function parsePort(text: string): number {
  const port = Number(text)
  if (!/^\d{1,5}$/.test(text) || port > 65_535) throw new InvalidArgumentError('a port from 0 to 65535, 0 for any free one.')
  return port
}

function parsePatience(text: string): number {
  const [, amount, unit] = /^(\d{1,5})(s|m|h)$/.exec(text) ?? []
  const ms = Number(amount) * (UNIT_MS[unit ?? ''] ?? 0)
  if (!(ms > 0 && ms <= 86_400_000)) throw new InvalidArgumentError('a duration such as 90s, 5m or 1h.')
  return ms
}

function refuse(why: string): number {
  process.stderr.write(`attache login: ${why}\n`)
  return 1
}
