/**
 * Whether a host name can only mean this machine: `localhost` and names below it (RFC 6761 §6.3), 127.0.0.0/8, `::1`.
 * Takes what `URL.hostname` gives (lower case, IPv4 normalised, IPv6 in brackets).
 */
export function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname.endsWith('.localhost') || hostname === '[::1]' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(hostname)
}
