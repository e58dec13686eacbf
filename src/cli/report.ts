import { formatFinding, type Finding } from '../config/findings.ts'

/** Writes what was found, errors first; gives the exit code. */
export function printFindings(findings: readonly Finding[], warnings: readonly Finding[]): number {
  for (const finding of findings) process.stderr.write(`${formatFinding(finding)}\n`)
  for (const warning of warnings) process.stderr.write(`warning: ${formatFinding(warning)}\n`)
  return findings.length === 0 ? 0 : 1
}

/** Writes what is wrong with the process's surroundings; gives the exit code. */
export function printEnvironment(findings: readonly string[]): number {
  for (const finding of findings) process.stderr.write(`environment: ${finding}\n`)
  return findings.length === 0 ? 0 : 1
}
