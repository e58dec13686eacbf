import { errors } from 'undici'
import { Problem, type ProblemCode } from '../exchange/problem.ts'

/**
 * Turns whatever the network did into one of our problems with its RFC 9209 §2.3 error type. The library's text stays in
 * `cause`: it names addresses and certificates that are none of the app's business.
 */
export function failureOf(error: unknown): Problem {
  if (error instanceof Problem) return error
  const [code, proxyError, detail] = classify(error)
  return new Problem(code, { proxyError, detail, cause: error })
}

type Verdict = readonly [code: ProblemCode, proxyError: string, detail: string]

function classify(error: unknown): Verdict {
  if (error instanceof errors.ConnectTimeoutError) return ['upstream-timeout', 'connection_timeout', 'the provider did not accept the connection in time']
  if (error instanceof errors.HeadersOverflowError) return ['upstream-protocol', 'http_response_header_section_size', 'the answer’s header is too large']
  if (error instanceof errors.ResponseContentLengthMismatchError)
    return ['upstream-protocol', 'http_response_incomplete', 'the answer’s body does not have the announced length']
  // undici's words for an answer nobody asked for, and for a protocol nobody asked for
  if (error instanceof errors.SocketError && error.message.startsWith('bad ')) return MALFORMED
  if (error instanceof errors.HTTPParserError) {
    return error.message.includes('Overflow') ? ['upstream-protocol', 'http_response_header_section_size', 'the answer’s header is too large'] : MALFORMED
  }
  const systemCode = systemCodeOf(error)
  if (systemCode !== undefined) {
    const known = SYSTEM_CODES[systemCode]
    if (known !== undefined) return known
    if (systemCode.startsWith('ERR_TLS') || systemCode.includes('CERT')) return UNTRUSTED
    if (systemCode.startsWith('ERR_SSL')) return NO_HANDSHAKE
  }
  if (error instanceof errors.SocketError) return ['upstream-unreachable', 'connection_terminated', 'the provider closed the connection']
  if (error instanceof errors.InvalidArgumentError) return ['bad-request', 'http_request_error', 'the request cannot be put on the wire']
  return ['upstream-unreachable', 'destination_unavailable', 'the provider cannot be reached']
}

const MALFORMED: Verdict = ['upstream-protocol', 'http_protocol_error', 'the answer is not well-formed HTTP']
const UNTRUSTED: Verdict = ['upstream-unreachable', 'tls_certificate_error', 'the provider’s TLS certificate was not accepted']
const NO_HANDSHAKE: Verdict = ['upstream-unreachable', 'tls_protocol_error', 'the TLS handshake failed']
const DNS_FAILURE: Verdict = ['upstream-unreachable', 'dns_error', 'the provider’s name does not resolve']
const TERMINATED: Verdict = ['upstream-unreachable', 'connection_terminated', 'the provider closed the connection']

const SYSTEM_CODES: Readonly<Record<string, Verdict>> = {
  ECONNREFUSED: ['upstream-unreachable', 'connection_refused', 'the provider refused the connection'],
  ECONNRESET: TERMINATED,
  EPIPE: TERMINATED,
  UND_ERR_SOCKET: TERMINATED,
  ETIMEDOUT: ['upstream-timeout', 'connection_timeout', 'the connection timed out'],
  ENOTFOUND: DNS_FAILURE,
  EAI_AGAIN: DNS_FAILURE,
  EAI_FAIL: DNS_FAILURE,
  EHOSTUNREACH: ['upstream-unreachable', 'destination_ip_unroutable', 'there is no route to the provider'],
  ENETUNREACH: ['upstream-unreachable', 'destination_ip_unroutable', 'there is no route to the provider'],
  // what node calls X509 certificate error codes, where the name does not say so itself
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNTRUSTED,
  INVALID_CA: UNTRUSTED,
  INVALID_PURPOSE: UNTRUSTED,
  PATH_LENGTH_EXCEEDED: UNTRUSTED,
  HOSTNAME_MISMATCH: UNTRUSTED,
  EPROTO: NO_HANDSHAKE
}

// happy eyeballs wraps the refusals of each address in an AggregateError without a code of its own
function systemCodeOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined
  if ('code' in error && typeof error.code === 'string') return error.code
  if (error instanceof AggregateError) return systemCodeOf(error.errors[0])
  return error.cause === undefined ? undefined : systemCodeOf(error.cause)
}
