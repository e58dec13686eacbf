import { url as inspectorUrl } from 'node:inspector'

const INSPECTOR = /^--inspect(?:-brk|-wait|-port|-publish-uid)?(?:=|$)|^--debug(?:-brk|-port)?(?:=|$)/
const KEY_LOG = /^--tls-keylog(?:=|$)/

/**
 * What in the process's surroundings would hand secrets to others, each with the way out; empty where all is well. Attache
 * refuses to start with any of them: TLS checks switched off, TLS keys logged, a debugger that can read the memory, or
 * node's own traces, which print header fields.
 */
export function environmentFindings(environment: NodeJS.ProcessEnv, execArgv: readonly string[]): string[] {
  const findings: string[] = []
  const flags = [...execArgv, ...(environment['NODE_OPTIONS'] ?? '').split(/\s+/)].map((flag) => flag.replaceAll(/^["']|["']$/g, ''))
  if (environment['NODE_TLS_REJECT_UNAUTHORIZED'] === '0') {
    findings.push(
      'NODE_TLS_REJECT_UNAUTHORIZED=0 switches the verification of certificates off: unset it, and name a private authority with ca: or NODE_EXTRA_CA_CERTS'
    )
  }
  if ((environment['SSLKEYLOGFILE'] ?? '') !== '') findings.push('SSLKEYLOGFILE logs the keys of TLS connections: unset it')
  if (flags.some((flag) => KEY_LOG.test(flag))) findings.push('--tls-keylog logs the keys of TLS connections: leave it out (NODE_OPTIONS included)')
  if (flags.some((flag) => INSPECTOR.test(flag)) || inspectorUrl() !== undefined) {
    findings.push('a debugger could read every secret: leave --inspect out (NODE_OPTIONS included)')
  }
  const traced = (environment['NODE_DEBUG'] ?? '').split(',').filter((part) => /^\*|^(?:https?2?|tls|net|stream|fetch|undici|crypto)\*?$/i.test(part.trim()))
  if (traced.length > 0) findings.push(`NODE_DEBUG=${traced.join(',')} prints header fields and with them tokens: unset it`)
  return findings
}
