import { Command, CommanderError } from 'commander'
import { nearest } from '../config/findings.ts'
import { VERSION } from '../package.ts'
import { addCheckCommand } from './check.ts'
import { addComingCommands } from './coming.ts'
import { addConfigCommand } from './config.ts'
import { addExplainCommand } from './explain.ts'
import { addKeysCommands } from './keys.ts'
import { addLoginCommand } from './login.ts'
import { addRunCommand } from './run.ts'
import { addSandboxCommand } from './sandbox.ts'
import { addReportCommand } from './volumes.ts'

/** Wrong usage, as against a config that was refused (1). */
const USAGE = 2

/** Runs one command; resolves with the exit code: 0 fine, 1 refused or found problems, 2 wrong usage. */
export async function runCommandLine(args: readonly string[]): Promise<number> {
  const program = commandLine()
  const [first] = args
  const names = [...program.commands.map((command) => command.name()), 'help']
  // the default command would call it an argument too many
  if (first !== undefined && !first.startsWith('-') && !names.includes(first)) {
    const meant = nearest(first, names)
    process.stderr.write(`error: unknown command ${JSON.stringify(first)}${meant === undefined ? '' : `; did you mean ${meant}?`}\n`)
    return USAGE
  }
  try {
    await program.parseAsync(args, { from: 'user' })
    return Number(process.exitCode ?? 0)
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    return error.exitCode === 0 ? 0 : USAGE
  }
}

// Each command loads what it needs when it is called: help, version and wrong usage are answered at once.
function commandLine(): Command {
  const program = new Command('attache')
    .description('A local sidecar that keeps your providers’ integration agreements.')
    .version(VERSION, '--version', 'print the version')
    .helpOption('--help', 'print this help')
    .showHelpAfterError('(attache --help lists what there is)')
    .exitOverride()
  addRunCommand(program)
  addCheckCommand(program)
  addConfigCommand(program)
  addExplainCommand(program)
  addKeysCommands(program)
  addLoginCommand(program)
  addReportCommand(program)
  addSandboxCommand(program)
  addComingCommands(program)
  return program
}
