import type { Clock } from '../exchange/clock.ts'
import type { Send } from '../exchange/chain.ts'
import type { Report } from '../exchange/events.ts'
import type { Fields } from '../http/fields.ts'
import type { UploadLimits } from './upload.ts'

/** One upstream as the data port sees it: how requests are made ready for it, and where they go. */
export type Door = {
  readonly upstream: string
  /** What stands for the provider here: `/finfo`, or empty on a port of the upstream's own. */
  readonly prefix: string
  readonly base: URL
  /** Removes from a request what must not cross. */
  readonly clean: (fields: Fields) => string[]
  /** Set on every call: configured headers, `User-Agent`, `Via`. */
  readonly injected: Fields
  readonly credentialOf: (method: string, path: string) => string | undefined
  /** Whether a path behind the prefix is where tokens come from: no place for the app to go with our credential. */
  readonly isTokenService: (path: string) => boolean
  readonly operationOf: (method: string, path: string) => string
  readonly send: Send
  /** The same for requests to go on in another protocol. */
  readonly upgrade: Send
  readonly upload: UploadLimits
}

export type DownstreamTools = {
  readonly clock: Clock
  readonly report: Report
  readonly nextId: () => string
  /** Whether any browser origin is listed: its answers then say that the page may read them. */
  readonly servesBrowsers: boolean
  /** Told of every request at its header and once more when it is over; says whether its connection stays open even while draining. */
  readonly underWay: (change: 1 | -1) => boolean
  /** While draining, callers are told to open their next connection elsewhere. */
  readonly isDraining: () => boolean
}
