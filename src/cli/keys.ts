import { resolve } from 'node:path'
import { InvalidArgumentError, Option, type Command } from 'commander'
import { systemClock, systemRandom } from '../exchange/clock.ts'
import { VERSION } from '../package.ts'
import type { CredentialOptions } from '../tokens/credentials.ts'
import { LONGEST_LIFE_DAYS, day } from '../tokens/keys/expiry.ts'
import { KEY_ALGORITHMS, KeyFolderError, type KeyAlgorithm, type KeyRecord } from '../tokens/keys/key-record.ts'
import type { Proof } from '../tokens/keys/prove.ts'
import { announcement, keyTable } from './keys-print.ts'
import { configCommand, configFile, type ConfigArguments } from './options.ts'
import { printFindings } from './report.ts'

type Arguments = ConfigArguments & { readonly out: string }
type NewArguments = Arguments & { readonly name: string; readonly alg: KeyAlgorithm; readonly days: number }
type RotateArguments = Arguments & { readonly name: string; readonly alg?: KeyAlgorithm; readonly days: number; readonly activate?: number }
type ListArguments = Arguments & { readonly name?: string }
type RetireArguments = Arguments & { readonly name: string; readonly credential?: string; readonly proven?: true; readonly early?: true }

const DEFAULT_DAYS = 365

/** `attache keys new|rotate|list|retire`: key pairs for certificate credentials; only their public halves are printed. */
export function addKeysCommands(program: Command): void {
  const keys = program.command('keys').description('key pairs for certificate credentials; prints public halves only').helpOption('--help', 'print this help')

  keysCommand(keys, 'new', 'make a key pair in place, with a self-signed certificate and a certificate request')
    .addOption(nameOption())
    .addOption(algorithmOption().default('RS256'))
    .addOption(daysOption())
    .action((args: NewArguments) => orRefused(() => makeNew(args)))

  keysCommand(keys, 'rotate', 'make the next key pair beside the active one: the overlap begins')
    .addOption(nameOption())
    .addOption(algorithmOption())
    .addOption(daysOption())
    .addOption(new Option('--activate <date>', 'from when on it may take over; in 14 days by default').argParser(parseDate))
    .action((args: RotateArguments) => orRefused(() => rotate(args)))

  keysCommand(keys, 'list', 'every key with its ids, dates and state; with --config also what is wrong with the keys of its credentials')
    .option('--name <name>', 'only the keys of this client', parseName)
    .action((args: ListArguments) => orRefused(() => list(args)))

  keysCommand(keys, 'retire', 'let the next key take over, once a token was granted with it, and put the old one aside')
    .addOption(nameOption())
    .option('--credential <name>', 'the credential of the config to prove it with; by default the one that uses the active key')
    .option('--proven', 'take it on your word that the provider accepts it, ask for no token')
    .option('--early', 'before its activation date')
    .action((args: RetireArguments, command: Command) => orRefused(() => retire(args, command)))
}

function keysCommand(keys: Command, name: string, description: string): Command {
  return configCommand(keys, name, description).option('--out <folder>', 'where the keys are kept', 'keys')
}

function nameOption(): Option {
  return new Option('--name <name>', 'whose keys: letters, digits, dots, dashes').argParser(parseName).default('attache')
}

function algorithmOption(): Option {
  return new Option('--alg <algorithm>', 'what it signs with').choices(KEY_ALGORITHMS)
}

function daysOption(): Option {
  return new Option('--days <days>', `how long it lasts, at most ${LONGEST_LIFE_DAYS}`).argParser(parseDays).default(DEFAULT_DAYS)
}

// The rooms below are loaded by the command that needs them: certificates cost a tenth of a second that no other command pays.

async function makeNew({ name, alg, days, out }: NewArguments): Promise<void> {
  const { firstKey } = await import('../tokens/keys/rotation.ts')
  const { folder, publicHalf } = await firstKey(resolve(out), { name, alg, days, now: systemClock().wallNow() })
  print(`made a key pair for ${name}\n${announcement('active', folder, publicHalf)}`)
}

async function rotate({ name, alg, days, out, activate }: RotateArguments): Promise<void> {
  const { beginOverlap } = await import('../tokens/keys/rotation.ts')
  const made = await beginOverlap(resolve(out), { name, alg, days, now: systemClock().wallNow(), activateAt: activate })
  const from = day(made.activateAt)
  print(
    `made the next key pair for ${name}; the active one signs on until attache keys retire, from ${from} on\n${announcement('next', made.folder, made.publicHalf)}`
  )
  if (made.activateAt > made.active.expiresAt) warn(`the active key ends before that, on ${day(made.active.expiresAt)}: tell the provider that it is urgent`)
}

async function list({ name, out, config, speed }: ListArguments): Promise<void> {
  const { listKeys } = await import('../tokens/keys/key-folder.ts')
  const now = systemClock().wallNow()
  const keys = await listKeys(resolve(out), name)
  print(keys.length === 0 ? `no keys in ${resolve(out)}` : keyTable(keys, now))
  if (config === undefined) return
  const { credentialKeys } = await import('../tokens/keys/inspect.ts')
  for (const { credential, findings } of credentialKeys(await credentialsIn(config, speed), now)) {
    for (const finding of findings) warn(`credential ${credential}: ${finding.message}`)
    if (findings.some((finding) => finding.isFatal)) process.exitCode = 1
  }
}

async function retire(args: RetireArguments, command: Command): Promise<void> {
  const { endOverlap } = await import('../tokens/keys/rotation.ts')
  const prove = args.proven ? undefined : (active: KeyRecord, next: KeyRecord): Promise<Proof> => askForToken(args, command, active, next)
  const { active, retired } = await endOverlap(resolve(args.out), { name: args.name, now: systemClock().wallNow(), early: args.early ?? false, prove })
  print(`${active.kid} is the active key of ${args.name} now\n${retired.kid} is retired, in ${retired.folder}; ask the provider to remove it`)
}

/** One token request with the next key, as the credential that uses the active one. */
async function askForToken(args: RetireArguments, command: Command, active: KeyRecord, next: KeyRecord): Promise<Proof> {
  const credentials = await credentialsIn(configFile(command, args), args.speed)
  const { credentialKeys, fingerprintOf } = await import('../tokens/keys/inspect.ts')
  const { proveKey } = await import('../tokens/keys/prove.ts')
  const { tokenFetch } = await import('../transport/token-fetch.ts')
  const clock = systemClock(args.speed)
  const inUse = fingerprintOf(active)
  const name = args.credential ?? credentialKeys(credentials, clock.wallNow()).find((key) => key.fingerprint === inUse)?.credential
  const options = name === undefined ? undefined : credentials[name]
  if (name === undefined || options === undefined) {
    return { kind: 'refused', reason: 'no such credential in the config, name one with --credential that uses the active key' }
  }
  return proveKey(name, options, next.folder, { clock, random: systemRandom, report: () => {}, version: VERSION, tokenFetch: tokenFetch() })
}

/** The credentials of a config that is in order; its findings are printed, and it is refused, where it is not. */
async function credentialsIn(file: string, speed: number): Promise<Readonly<Record<string, CredentialOptions>>> {
  const { loadConfig } = await import('../config/load.ts')
  const result = loadConfig(file, process.env, { speed, expired: 'warn' })
  if (result.kind === 'loaded') return result.config.credentials
  printFindings(result.findings, result.warnings)
  throw new KeyFolderError('the config has to be mended first')
}

/** Runs it; what it refuses is one line and exit code 1. */
async function orRefused(work: () => Promise<void>): Promise<void> {
  try {
    await work()
  } catch (error) {
    if (!(error instanceof KeyFolderError)) throw error
    process.stderr.write(`attache keys: ${error.message}\n`)
    process.exitCode = 1
  }
}

function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

function warn(text: string): void {
  process.stderr.write(`warning: ${text}\n`)
}

// A file name and the CN of a certificate: nothing in it may mean something to either.
function parseName(text: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(text)) throw new InvalidArgumentError('up to 63 letters, digits, dots and dashes.')
  return text
}

function parseDays(text: string): number {
  const days = Number(text)
  if (!/^\d{1,4}$/.test(text) || days < 1 || days > LONGEST_LIFE_DAYS) throw new InvalidArgumentError(`a whole number from 1 to ${LONGEST_LIFE_DAYS}.`)
  return days
}

function parseDate(text: string): number {
  const date = Date.parse(`${text}T00:00:00Z`)
  // The thirtieth of February would be parsed as the second of March.
  if (Number.isNaN(date) || day(date) !== text) throw new InvalidArgumentError('a date like 2027-01-31.')
  return date
}
