import { fieldValues, isNamed, type Fields } from './fields.ts'

/** One request field an answer depends on, with the value it was given for; undefined where the request had none. */
export type Selecting = { readonly name: string; readonly raw: string | undefined; readonly value: string | undefined }

/** The names in `Vary`, lower case, each once; `'*'` where the choice depends on more than fields (RFC 9110 §12.5.5). */
export function varyNames(fields: Fields): readonly string[] | '*' {
  const names = new Set<string>()
  for (const value of fieldValues(fields, 'vary')) {
    for (const member of value.split(',')) {
      const name = member.trim().toLowerCase()
      if (name === '*') return '*'
      if (name !== '') names.add(name)
    }
  }
  return [...names]
}

/** The selecting fields of a request for these names, ready for comparison. */
export function selecting(names: readonly string[], fields: Fields): readonly Selecting[] {
  return names.map((name) => {
    const raw = combined(fields, name)
    return { name, raw, value: normalized(name, raw) }
  })
}

/**
 * Whether a request selects the answer that was given for `stored` (RFC 9111 §4.1): every selecting field is the same,
 * after normalisation that keeps its meaning, or absent from both.
 *
 * `language` is the one the stored answer is in (`Content-Language`): a request that prefers exactly this one to all
 * others selects it, whatever else it would put up with.
 */
export function selects(fields: Fields, stored: readonly Selecting[], language: string | undefined): boolean {
  for (const wanted of stored) {
    const raw = combined(fields, wanted.name)
    // the same bytes as last time is the usual case
    if (raw === wanted.raw) continue
    if (normalized(wanted.name, raw) === wanted.value) continue
    if (wanted.name === 'accept-language' && language !== undefined && favourite(raw) === language) continue
    return false
  }
  return true
}

// Lists whose order means nothing and whose members are case-insensitive (RFC 9110 §12.5.3 to §12.5.4).
const PREFERENCES = new Set(['accept-language', 'accept-encoding', 'accept-charset'])

/** One line for several of the same name (RFC 9110 §5.3); no allocation where there is one or none. */
function combined(fields: Fields, name: string): string | undefined {
  let found: string | undefined
  for (let i = 0; i < fields.length; i += 2) {
    if (!isNamed(fields[i] as string, name)) continue
    found = found === undefined ? fields[i + 1] : `${found}, ${fields[i + 1]}`
  }
  return found
}

function normalized(name: string, raw: string | undefined): string | undefined {
  if (raw === undefined) return undefined
  if (!PREFERENCES.has(name)) return withoutListBlanks(raw)
  return preferences(raw)
    .map(({ range, quality }) => `${range};q=${quality}`)
    .toSorted()
    .join(',')
}

// Blanks around commas mean nothing in a list; inside quotes they are content.
function withoutListBlanks(value: string): string {
  return value.trim().replaceAll(/"(?:[^"\\]|\\.)*"|[ \t]*,[ \t]*/g, (part) => (part.startsWith('"') ? part : ','))
}

type Preference = { readonly range: string; readonly quality: number }

function preferences(raw: string): Preference[] {
  return raw
    .toLowerCase()
    .split(',')
    .map((member) => {
      const [range = '', ...parameters] = member.split(';').map((part) => part.trim())
      const weight = parameters.find((parameter) => parameter.startsWith('q='))
      const quality = weight === undefined ? 1 : Number(weight.slice(2))
      return { range: parameters.length > (weight === undefined ? 0 : 1) ? member.trim() : range, quality: Number.isNaN(quality) ? 0 : quality }
    })
    .filter(({ range }) => range !== '')
}

/** The one language a request prefers to all others; undefined where several share the first place. */
function favourite(raw: string | undefined): string | undefined {
  if (raw === undefined) return undefined
  const [first, second] = preferences(raw).toSorted((a, b) => b.quality - a.quality)
  if (first === undefined || first.quality === 0 || first.range === '*') return undefined
  return second === undefined || second.quality < first.quality ? first.range : undefined
}
