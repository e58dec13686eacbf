import { existsSync } from 'node:fs'
import { InvalidArgumentError, Option, type Command, type CommandOptions } from 'commander'

/** Options every command that reads the config has. */
export type ConfigArguments = { readonly config?: string; readonly speed: number }

const DEFAULT_FILE = 'attache.yaml'

/** A new command with `--config` and `--speed`. */
export function configCommand(program: Command, name: string, description: string, options: CommandOptions = {}): Command {
  return program
    .command(name, options)
    .description(description)
    .addOption(new Option('--config <file>', `config file (${DEFAULT_FILE} where it exists)`).env('ATTACHE_CONFIG'))
    .addOption(speedOption())
}

/** `--speed N`. */
export function speedOption(): Option {
  return new Option('--speed <n>', 'all durations pass N times faster; every configured URL must be on loopback')
    .env('ATTACHE_SPEED')
    .default(1)
    .argParser(parseSpeed)
}

/** The config file meant, or wrong usage. */
export function configFile(command: Command, { config }: ConfigArguments): string {
  if (config !== undefined && config !== '') return config
  if (existsSync(DEFAULT_FILE)) return DEFAULT_FILE
  return command.error(`error: no configuration: name a file with --config or ATTACHE_CONFIG (there is no ${DEFAULT_FILE} here)`)
}

function parseSpeed(text: string): number {
  // an empty variable is one that is not set, to whoever writes a compose file
  if (text === '') return 1
  const speed = Number(text)
  if (!/^\d+(?:\.\d+)?$/.test(text) || speed < 1 || speed > 1_000_000) throw new InvalidArgumentError('a number from 1 to 1000000.')
  return speed
}
