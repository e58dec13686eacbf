import { isPrivate } from '../assertion.ts'
import { field, type Bench, type Fields, type Rule } from '../call.ts'

export type HygieneRuleOptions = {
  /** Who is calling must be readable. */
  readonly identity: string
  /** Fields that were meant for one connection, for a proxy or for a browser. */
  readonly foreign: string
  /** `Accept` and `Content-Type`. */
  readonly types: string
  /** A secret where it has no business. */
  readonly secrets: string
}

const HOP_BY_HOP = ['keep-alive', 'proxy-connection', 'proxy-authorization', 'te', 'upgrade', 'trailer']
const NOT_FOR_PROVIDERS = ['cookie', 'origin', 'forwarded', 'x-real-ip', 'baggage', 'client-cert', 'x-http-method-override']
// whole families: what proxies tell each other, what a browser says of itself, what only Attache understands
const FOREIGN_FAMILY = /^(x-forwarded|sec|attache)-/

/** Manners on the wire: say who you are, what you send and what you understand, and nothing that is nobody's business. */
export function hygiene(options: HygieneRuleOptions, bench: Bench): Rule {
  return {
    arrived(call) {
      const has = (name: string): boolean => field(call.fields, name) !== undefined
      const note = (clause: string, severity: 'S1' | 'S2' | 'S3', detail: string): void => bench.note(clause, severity, call.client, detail)
      if (!has('user-agent')) note(options.identity, 'S3', 'no User-Agent')
      if (call.httpVersion === '1.0') note(options.identity, 'S3', 'HTTP/1.0')
      // RFC 9110 §7.6.3: who passes on says so
      if (!has('via')) note('RFC9110-7.6.3', 'S2', 'no Via')
      for (const name of HOP_BY_HOP) if (has(name)) note('RFC9110-7.6.1', 'S2', `hop-by-hop field ${name}`)
      for (const name of foreignIn(call.fields)) note(options.foreign, 'S2', `field ${name}`)
      for (const option of (field(call.fields, 'connection') ?? '').split(',').map((each) => each.trim().toLowerCase()))
        if (!['', 'keep-alive', 'close'].includes(option)) note('RFC9110-7.6.1', 'S2', `Connection names ${option}`)
      if (!has('accept')) note(options.types, 'S2', 'no Accept')
      if (call.body.length > 0 && !has('content-type')) note(options.types, 'S2', 'a body without Content-Type')
      if (call.method === 'GET' && call.body.length === 0 && has('content-type')) note(options.types, 'S2', 'Content-Type without a body')
      if (isPrivate(call.body.toString())) note(options.secrets, 'S1', 'a private key in a body')
    }
  }
}

function foreignIn(fields: Fields): string[] {
  return fields.map(([name]) => name.toLowerCase()).filter((name) => NOT_FOR_PROVIDERS.includes(name) || FOREIGN_FAMILY.test(name))
}
