/**
 * The vocabulary of option schemas, the only room that imports TypeBox. A room describes its section once with these;
 * the published JSON Schema, the TypeScript type and the decoding of human values (`30s`, `2MiB`) all derive from it.
 *
 * A property with a `default` is optional in the file and always present after loading. Human values are strings in the
 * schema (keyword `x-attache` names the kind) and numbers in the type: `config/` decodes them once, at the edge.
 */
import { Type, type Static, type TSchema, type TProperties } from 'typebox'
import type { SecretSource } from './secret.ts'

export type Decoded<Schema extends TSchema> = Static<Schema>
export type { TSchema } from 'typebox'

/** `100/1m`: at most `count` in any window of `windowMs`; `label` is the text as written. */
export type Rate = { readonly count: number; readonly windowMs: number; readonly label: string }

/** Where to listen: a TCP address (`host` without brackets, port 0 for any free one) or a unix socket. */
export type ListenAddress = { readonly kind: 'tcp'; readonly host: string; readonly port: number } | { readonly kind: 'unix'; readonly path: string }

type Described<T> = { description: string; default?: T }

export const DURATION = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/
export const SIZE = /^(\d+(?:\.\d+)?)(B|KB|MB|GB|KiB|MiB|GiB)$/
export const RATE = /^(\d+)\/(\d+(?:\.\d+)?(?:ms|s|m|h|d))$/

/** `250ms 10s 5m 1h 30d`; decoded to milliseconds. */
export function duration(description: string, byDefault?: string) {
  return Type.Unsafe<number>(Type.String({ ...described(description, byDefault), pattern: DURATION.source, 'x-attache': 'duration' }))
}

/** `64KiB 6MB`; decoded to bytes. */
export function size(description: string, byDefault?: string) {
  return Type.Unsafe<number>(Type.String({ ...described(description, byDefault), pattern: SIZE.source, 'x-attache': 'size' }))
}

/** `100/1m`. */
export function rate(description: string) {
  return Type.Unsafe<Rate>(Type.String({ description, pattern: RATE.source, 'x-attache': 'rate' }))
}

/** A calendar date `2028-01-31` or date-time; decoded to epoch milliseconds (a bare date is midnight UTC). */
export function date(description: string) {
  return Type.Unsafe<number>(Type.String({ description, 'x-attache': 'date' }))
}

/** A reference `${ENV}` or `file:/path`; decoded to a source that re-reads the file when it changes. */
export function secret(description: string) {
  return Type.Unsafe<SecretSource>(Type.String({ description, 'x-attache': 'secret' }))
}

/** A path in the file system, relative to the config file; decoded to an absolute path. */
export function path(description: string) {
  return Type.Unsafe<string>(Type.String({ description, 'x-attache': 'path' }))
}

/** `127.0.0.1:7600`, `[::1]:7600`, `localhost:0` or `unix:/path` (relative to the config file); decoded to its parts. */
export function listenAddress(description: string, byDefault?: string) {
  return Type.Unsafe<ListenAddress>(Type.String({ ...described(description, byDefault), 'x-attache': 'listen' }))
}

/** `METHOD /template`, or `/template` for every method; `*` is one segment, `**` the rest. Paths only: a query takes no part in matching. */
export function route(description: string) {
  return Type.String({ description, pattern: '^(?:[A-Z]+ )?/[^\\s?#]*$' })
}

export function text(description: string, byDefault?: string) {
  return Type.String(described(description, byDefault))
}

export function textLike(description: string, pattern: string, byDefault?: string) {
  return Type.String({ ...described(description, byDefault), pattern })
}

export function flag(description: string, byDefault: boolean) {
  return Type.Boolean(described(description, byDefault))
}

export function number(description: string, range: { minimum?: number; maximum?: number }, byDefault?: number) {
  return Type.Number({ ...described(description, byDefault), ...range })
}

export function integer(description: string, range: { minimum?: number; maximum?: number }, byDefault?: number) {
  return Type.Integer({ ...described(description, byDefault), ...range })
}

/** One of a few literal words. */
export function choice<const Words extends readonly string[]>(description: string, words: Words, byDefault?: Words[number]) {
  return Type.Unsafe<Words[number]>(Type.Enum([...words], described(description, byDefault)))
}

export function list<Item extends TSchema>(description: string, item: Item, byDefault?: unknown[]) {
  return Type.Array(item, described(description, byDefault))
}

export function map<Value extends TSchema>(description: string, value: Value, byDefault?: Record<string, unknown>) {
  return Type.Record(Type.String(), value, described(description, byDefault))
}

/** A closed object: unknown keys are errors. Pass `{}` as default for a section that is always there. */
export function section<Properties extends TProperties>(description: string, properties: Properties, byDefault?: Record<string, unknown>) {
  return Type.Object(properties, { ...described(description, byDefault), additionalProperties: false })
}

export function optional<Schema extends TSchema>(schema: Schema) {
  return Type.Optional(schema)
}

export function either<Schemas extends TSchema[]>(description: string, ...schemas: Schemas) {
  return Type.Unsafe<Static<Schemas[number]>>(Type.Union(schemas, { description }))
}

/** Anything at all, e.g. extra JWT claims. */
export function anything(description: string) {
  return Type.Unknown({ description })
}

function described<T>(description: string, byDefault: T | undefined): Described<T> {
  return byDefault === undefined ? { description } : { description, default: byDefault }
}
