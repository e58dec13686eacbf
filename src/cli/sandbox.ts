import { InvalidArgumentError, type Command } from 'commander'
import { speedOption } from './options.ts'

type SandboxArguments = { readonly port: number; readonly host: string; readonly speed: number }

/** `attache sandbox`: the strict fake providers, until a signal ends them. */
export function addSandboxCommand(program: Command): void {
  program
    .command('sandbox')
    .description('start the strict fake providers, with a violation ledger at GET /ledger')
    .option('--port <port>', 'port, 0 for any free one', parsePort, 7700)
    .option('--host <address>', 'loopback address', '127.0.0.1')
    .option('--config <file>', 'accepted like everywhere, not needed here')
    .addOption(speedOption())
    .action(async (args: SandboxArguments) => {
      const { openSandbox } = await import('../../sandbox/main.ts')
      const sandbox = await openSandbox({ port: args.port, host: args.host, speed: args.speed })
      const { promise: stopped, resolve: stop } = Promise.withResolvers<void>()
      for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop())
      // said last: whoever reads it may end it at once
      process.stdout.write(`sandbox on ${sandbox.url}; ledger at ${sandbox.url}/ledger\n`)
      await stopped
      await sandbox.close()
    })
}

function parsePort(text: string): number {
  const port = Number(text)
  if (!/^\d{1,5}$/.test(text) || port > 65_535) throw new InvalidArgumentError('a port from 0 to 65535.')
  return port
}
