import { runCommandLine } from './cli/program.ts'

// npm only warns where `engines` does not fit
const OLDEST_NODE = 24

if (Number.parseInt(process.versions.node) < OLDEST_NODE) {
  process.stderr.write(`attache needs Node ${OLDEST_NODE} or later; this is ${process.version}\n`)
  process.exitCode = 1
} else {
  process.exitCode = await runCommandLine(process.argv.slice(2))
}
