import type { Policy } from '../exchange/chain.ts'
import type { UpstreamTools } from '../exchange/tools.ts'
import { noticeOf } from '../http/notices.ts'

/**
 * Reads what the provider says about the end of an operation (RFC 9745, RFC 8594, brownouts) on every answer, whatever its
 * status, and reports it as `deprecated-call`. The answer passes through untouched.
 */
export function notices(tools: UpstreamTools): Policy {
  const { clock, report, upstream } = tools

  return async function notices(request, next) {
    const response = await next(request)
    const notice = noticeOf(response.status, response.fields, clock.wallNow)
    if (notice !== undefined) {
      const { stage, deprecatedAt, sunsetAt, link } = notice
      report({ kind: 'deprecated-call', upstream, operation: request.operation, stage, deprecatedAt, sunsetAt, link })
      if (notice.inconsistent) report({ kind: 'warning', about: upstream, message: 'the provider names a sunset before the deprecation; ask which date holds' })
    }
    return response
  }
}
