import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { Command } from 'commander'
import { systemClock, systemRandom } from '../exchange/clock.ts'
import { isLoopback } from '../http/loopback.ts'
import { VERSION } from '../package.ts'
import type { SignIn } from '../tokens/sign-in.ts'
import { configCommand, configFile, type ConfigArguments } from './options.ts'
import { printFindings } from './report.ts'

const PATIENCE_MS = 600_000
const LARGEST_FORM = 64 * 1024

/** `attache login CREDENTIAL`: a person signs in with the browser, and the refresh token goes into the state. */
export function addLoginCommand(program: Command): void {
  configCommand(program, 'login', 'sign in for a refresh_token credential: authorization code with PKCE on a loopback redirect')
    .argument('<credential>', 'name of the credential')
    .action(async (name: string, args: ConfigArguments, command: Command) => {
      process.exitCode = await login(name, configFile(command, args), args.speed)
    })
}

async function login(name: string, file: string, speed: number): Promise<number> {
  const { loadConfig } = await import('../config/load.ts')
  const loaded = loadConfig(file, process.env, { speed })
  if (loaded.kind === 'refused') return printFindings(loaded.findings, loaded.warnings)
  const options = loaded.config.credentials[name]
  if (options === undefined) return refuse(`no credential ${name} in ${file}`)
  if (loaded.config.state === 'memory:') return refuse('state is memory:, which would forget the sign-in at once')

  const { openStore } = await import('../state/open-store.ts')
  const { beginSignIn, SignInError } = await import('../tokens/sign-in.ts')
  const { tokenFetch } = await import('../transport/token-fetch.ts')
  const tools = { clock: systemClock(speed), random: systemRandom, report: () => {} }
  const store = await openStore(loaded.config.state, tools)
  const patience = new AbortController()
  const timer = tools.clock.after(PATIENCE_MS / tools.clock.realMs(1), () => patience.abort())
  try {
    const signIn = await beginSignIn(name, options, { ...tools, store, version: VERSION, tokenFetch: tokenFetch() }, patience.signal)
    const ready = (): void =>
      void process.stdout.write(`Open this address in your browser and sign in:\n\n${signIn.url}\n\nWaiting at ${options.redirectUri}\n`)
    await comeBack(new URL(options.redirectUri), signIn, patience.signal, ready)
    process.stdout.write(`Signed in: credential ${name} renews its tokens by itself from now on.\n`)
    return 0
  } catch (error) {
    if (error instanceof SignInError) return refuse(error.message)
    throw error
  } finally {
    timer.cancel()
    await store.close()
  }
}

/** Waits on the loopback address for the browser to come back, by link or by form; foreign responses are turned away. */
async function comeBack(redirect: URL, signIn: SignIn, signal: AbortSignal, ready: () => void): Promise<void> {
  const { SignInError } = await import('../tokens/sign-in.ts')
  if (redirect.protocol !== 'http:' || !isLoopback(redirect.hostname)) throw new SignInError('redirectUri must begin with http: and be on loopback', false)
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  let isTaken = false

  async function receive(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', redirect)
    if (url.pathname !== redirect.pathname) return page(response, 404, 'Nothing here.')
    try {
      const parameters = request.method === 'POST' ? await formIn(request) : url.searchParams
      if (isTaken) return page(response, 409, 'This sign-in is over already.')
      isTaken = true
      await signIn.finish(parameters, signal)
      page(response, 200, 'Signed in. You may close this window.')
      resolve()
    } catch (error) {
      page(response, 400, 'This did not work; the terminal tells why.')
      if (error instanceof SignInError && error.isForeign) isTaken = false
      else reject(error)
    }
  }

  const server = createServer({ requestTimeout: 10_000 }, (request, response) => void receive(request, response))
  server.on('error', (cause) => reject(new SignInError(`cannot listen at ${redirect.host}, see redirectUri`, false, cause)))
  signal.addEventListener('abort', () => reject(new SignInError('nobody signed in within ten minutes', false)), { once: true })
  server.listen(Number(redirect.port || 80), redirect.hostname.replace(/^\[|\]$/g, ''), ready)
  try {
    await promise
  } finally {
    server.close()
    server.closeIdleConnections()
  }
}

async function formIn(request: IncomingMessage): Promise<URLSearchParams> {
  let text = ''
  for await (const chunk of request) {
    text += String(chunk)
    if (text.length > LARGEST_FORM) throw new RangeError('too much for a form')
  }
  return new URLSearchParams(text)
}

function page(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { 'Content-Type': 'text/plain; charset=utf-8', 'Cache-Control': 'no-store', Connection: 'close' }).end(`${text}\n`)
}

function refuse(why: string): number {
  process.stderr.write(`attache login: ${why}\n`)
  return 1
}
