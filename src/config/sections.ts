/**
 * Sections whose capability is still to come, and so have no room of their own yet. The schema accepts them from the
 * start; `not-yet.ts` names each one that a file uses.
 */
import { choice, date, duration, integer, number, optional, route, section, text, textLike } from '../exchange/options.ts'

export const enumerationOptions = section('A guard against walking through all data one by one', {
  distinct: integer('Distinct paths of one operation', { minimum: 1 }),
  window: duration('… within this time'),
  action: choice('What happens then', ['report', 'block'], 'report'),
  useInstead: optional(text('The operation the provider offers for synchronisation'))
})

export const lifecycleRule = section('An operation on its way out', {
  match: route('METHOD /template'),
  stage: choice('Stage', ['proposed', 'in-test', 'in-production', 'deprecated', 'deprecated-warning', 'ready-for-sunset', 'sunset']),
  since: optional(date('Since when')),
  sunset: optional(date('When it ends')),
  successor: optional(text('What replaces it'))
})

export const spendRule = section('A paid operation', {
  name: textLike('Name in metrics and reports', '^[A-Za-z0-9_-]{1,64}$'),
  match: route('METHOD /template'),
  cost: number('Price of one', { minimum: 0 }),
  currency: textLike('ISO 4217 code', '^[A-Z]{3}$'),
  budget: optional(
    section('At most this many', {
      perHour: optional(number('Count', { minimum: 0 })),
      perDay: optional(number('Count', { minimum: 0 })),
      perMonth: optional(number('Count', { minimum: 0 })),
      perQuarter: optional(number('Count', { minimum: 0 })),
      perYear: optional(number('Count', { minimum: 0 }))
    })
  )
})
