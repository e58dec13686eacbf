import type { Issue } from './decode.ts'
import type { Config, UpstreamOptions } from './schema.ts'

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/

// fields that frame or route a message are the transport's own business
const RESERVED = [
  'connection',
  'content-length',
  'expect',
  'host',
  'keep-alive',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade'
]

/** What is wrong with one upstream, looking at nothing but itself. */
export function upstreamIssues(name: string, upstream: UpstreamOptions): Issue[] {
  const at = (...path: string[]): string[] => ['upstreams', name, ...path]
  const issues: Issue[] = [...headerIssues(upstream, at)]
  const { retry, breaker, cache, timeout, volume, waitDefault } = upstream

  if (retry.attempts > 1 && retry.backoff.length === 0) issues.push({ path: at('retry', 'backoff'), message: 'needs a step, or attempts: 1' })
  if (breaker.maxCooldown < breaker.cooldown) issues.push({ path: at('breaker', 'maxCooldown'), message: 'must not be shorter than cooldown' })
  if (cache.maxEntryBytes > cache.maxBytes) issues.push({ path: at('cache', 'maxEntryBytes'), message: 'must not be larger than maxBytes' })
  for (const [key, ms] of Object.entries(timeout)) {
    if (ms === 0) issues.push({ path: at('timeout', key), message: 'must be longer than nothing' })
  }
  cache.vary.forEach((name, index) => {
    if (!TOKEN.test(name)) issues.push({ path: at('cache', 'vary', String(index)), message: 'is no name of a header field' })
  })
  if (volume.key?.startsWith('header:') && !TOKEN.test(volume.key.slice('header:'.length))) {
    issues.push({ path: at('volume', 'key'), message: 'is no name of a header field' })
  }
  for (const status of Object.keys(cache.negative)) {
    if (!/^[234]\d\d$/.test(status))
      issues.push({ path: at('cache', 'negative', status), message: 'must be a status from 200 to 499, errors of the server are never kept' })
  }
  for (const status of Object.keys(waitDefault)) {
    if (!/^[45]\d\d$/.test(status)) issues.push({ path: at('waitDefault', status), message: 'must be a status from 400 to 599' })
  }
  for (const [index, rule] of upstream.lifecycle.entries()) {
    if (rule.since !== undefined && rule.sunset !== undefined && rule.sunset < rule.since) {
      issues.push({ path: at('lifecycle', String(index), 'sunset'), message: 'must not be before since' })
    }
  }
  // it becomes a comment of User-Agent, where these would end it
  if (upstream.contact !== undefined && !/^[\x21-\x27\x2a-\x5b\x5d-\x7e]+(?: [\x21-\x27\x2a-\x5b\x5d-\x7e]+)*$/.test(upstream.contact)) {
    issues.push({ path: at('contact'), message: 'must be plain ASCII without parentheses or backslash' })
  }
  return issues
}

/** A field that bears a static credential may no more frame or route a message than one that is set. */
export function credentialFieldIssues(credentials: Config['credentials']): Issue[] {
  return Object.entries(credentials)
    .filter(([, { grant, header }]) => grant === 'static' && header !== undefined && RESERVED.includes(header.toLowerCase()))
    .map(([name]) => ({ path: ['credentials', name, 'header'], message: 'is set by the connection itself' }))
}

function headerIssues(upstream: UpstreamOptions, at: (...path: string[]) => string[]): Issue[] {
  const names = new Set<string>()
  const headers = Object.entries(upstream.headers).flatMap(([name, value]) => {
    const path = at('headers', name)
    if (!TOKEN.test(name)) return [{ path, message: 'is no name of a header field' }]
    const issues: Issue[] = []
    if (RESERVED.includes(name.toLowerCase())) issues.push({ path, message: 'is set by the connection itself' })
    if (names.has(name.toLowerCase())) issues.push({ path, message: 'the same field twice, case does not matter' })
    names.add(name.toLowerCase())
    // RFC 9110 §5.5
    if (!/^(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?$/.test(value)) {
      issues.push({ path, message: 'is no value of a header field: control characters and space at the ends are not allowed' })
    }
    return issues
  })
  const passes = (['request', 'response'] as const).flatMap((way) =>
    upstream.pass[way].flatMap((name, index) => (TOKEN.test(name) ? [] : [{ path: at('pass', way, String(index)), message: 'is no name of a header field' }]))
  )
  return [...headers, ...passes]
}
