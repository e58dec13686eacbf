import type { Command } from 'commander'
import { configCommand } from './options.ts'

const COMING: readonly (readonly [name: string, description: string])[] = [['audit', 'clause by clause: kept, broken, unproven or for a person']]

/** Commands whose capability is still to come: they say so and end with 1, whatever their arguments. */
export function addComingCommands(program: Command): void {
  for (const [name, description] of COMING) {
    configCommand(program, name, `${description} (not available yet)`)
      .allowUnknownOption()
      .argument('[arguments...]')
      .action(() => {
        process.stderr.write(`attache ${name}: not available yet\n`)
        process.exitCode = 1
      })
  }
}
