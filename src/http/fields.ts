/**
 * Header fields as node and undici speak them on the wire: a flat list `[name, value, name, value, …]`, in the order and
 * spelling received, duplicates kept (RFC 9110 §5.2, §5.3). Values are strings of bytes (latin-1), never decoded.
 */
export type Fields = readonly string[]

/** The first value of a field; `name` in lower case. */
export function field(fields: Fields, name: string): string | undefined {
  for (let i = 0; i < fields.length; i += 2) {
    if (isNamed(fields[i] as string, name)) return fields[i + 1]
  }
  return undefined
}

/** Every value of a field, in order; `name` in lower case. */
export function fieldValues(fields: Fields, name: string): string[] {
  const values: string[] = []
  for (let i = 0; i < fields.length; i += 2) {
    if (isNamed(fields[i] as string, name)) values.push(fields[i + 1] as string)
  }
  return values
}

/** All values joined as one list (RFC 9110 §5.3), undefined where the field is absent; `name` in lower case. */
export function fieldList(fields: Fields, name: string): string | undefined {
  let list: string | undefined
  for (let i = 0; i < fields.length; i += 2) {
    if (isNamed(fields[i] as string, name)) list = list === undefined ? fields[i + 1] : `${list}, ${fields[i + 1]}`
  }
  return list
}

export function hasField(fields: Fields, name: string): boolean {
  return field(fields, name) !== undefined
}

/** A copy without the named field; `name` in lower case. */
export function withoutField(fields: Fields, name: string): Fields {
  return keepFields(fields, (candidate) => !isNamed(candidate, name))
}

/** A copy where the field occurs exactly once, with this value, at the end. */
export function withField(fields: Fields, name: string, value: string): Fields {
  return [...withoutField(fields, name.toLowerCase()), name, value]
}

/** A copy with only those fields that `keep` accepts; it is given the name as received. */
export function keepFields(fields: Fields, keep: (name: string, value: string) => boolean): string[] {
  const kept: string[] = []
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i] as string
    const value = fields[i + 1] as string
    if (keep(name, value)) kept.push(name, value)
  }
  return kept
}

/** Compares a field name as received with one in lower case; the length check spares most of the lower-casing. */
export function isNamed(received: string, lowerCaseName: string): boolean {
  return received.length === lowerCaseName.length && (received === lowerCaseName || received.toLowerCase() === lowerCaseName)
}
