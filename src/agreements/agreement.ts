import { anything, list, optional, section, text, textLike, type Decoded, type Rate } from '../exchange/options.ts'

const clause = textLike('Id of the clause, e.g. IA-13', '^[A-Z]{2}-\\d{2,3}$')
const key = textLike('upstream.KEY or credential.KEY, dotted', '^(?:upstream|credential)\\.')

const bound = section('A setting must not be laxer than this', {
  clause,
  key,
  why: text('What the agreement says, in a few words'),
  min: optional(anything('At least: a number, duration or size; a list is compared step by step')),
  max: optional(anything('At most')),
  includes: optional(list('The list must hold all of these', anything('An item'))),
  atMost: optional(text('The list of rates must keep to this rate'))
})

const requirement = section('A setting that has to be there', {
  clause,
  key,
  why: text('What the agreement says, in a few words'),
  matches: optional(text('uuid'))
})

/** The file format of `config/agreements/*.yaml`: what a provider's agreement asks for, as defaults and bounds. */
export const agreementOptions = section('An integration agreement', {
  name: textLike('Name used in `agreement:`', '^[a-z0-9][a-z0-9-]*$'),
  title: text('Title'),
  provider: optional(text('Who offers the API')),
  aliases: list('Other names it is found by', text('Name'), []),
  defaults: section(
    'Settings where the file says nothing',
    { upstream: optional(anything('Keys of an upstream')), credential: optional(anything('Keys of a credential')) },
    {}
  ),
  bounds: list('A laxer setting is refused, naming the clause, unless a waiver covers it', bound, []),
  requires: list('Settings that have to be there', requirement, [])
})

type Written = Decoded<typeof agreementOptions>

/** A bound whose human values have become numbers. */
export type Bound = {
  readonly clause: string
  readonly key: string
  readonly why: string
  readonly min?: number | readonly number[]
  readonly max?: number
  readonly includes?: readonly unknown[]
  readonly atMost?: Rate
  /** `min` or `max` as written, for the message. */
  readonly written: string
}

export type Requirement = Written['requires'][number]

export type Agreement = {
  readonly name: string
  readonly title: string
  /** Where it was read from. */
  readonly file: string
  readonly defaults: { readonly upstream: Readonly<Record<string, unknown>>; readonly credential: Readonly<Record<string, unknown>> }
  readonly bounds: readonly Bound[]
  readonly requires: readonly Requirement[]
}

export type WrittenAgreement = Written
export type WrittenBound = Written['bounds'][number]
