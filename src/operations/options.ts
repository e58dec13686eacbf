import { duration, integer, number, section, size, type Decoded } from '../exchange/options.ts'

export const asyncOptions = section(
  'Work that outlives its caller (Prefer: respond-async, Prefer: wait) and answers that come later (202 + Location)',
  {
    poll: section(
      'How Attache asks whether it is done',
      {
        first: duration('First pause', '250ms'),
        factor: number('Each pause is longer by this factor', { minimum: 1 }, 1.6),
        max: duration('Longest pause', '30s'),
        deadline: duration('Give up after', '5m')
      },
      {}
    ),
    settle: duration(
      'How long what a 202 accepted may not be carried out, and what a 201 or 202 points to be missing: until then neither the old state nor the absence is kept as an answer',
      '60s'
    ),
    deadline: duration('A background operation that has not ended by then is given up', '24h'),
    keep: duration('How long its outcome can be fetched', '24h'),
    operations: integer('Background operations under way and outcomes kept, together', { minimum: 0 }, 1000),
    maxBytes: size('Their bodies, together', '64MiB')
  },
  {}
)
export type AsyncOptions = Decoded<typeof asyncOptions>
