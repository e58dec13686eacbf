import type { Operation } from './call.ts'

/** Finds the operation of a path, `known` where only its method is wrong. */
export function match(
  operations: readonly Operation[],
  method: string,
  path: string
): { operation: Operation | undefined; params: Record<string, string>; known: boolean } {
  let known = false
  for (const operation of operations) {
    const params = paramsOf(operation.template, path)
    if (params === undefined) continue
    known = true
    if (operation.method === method || (method === 'HEAD' && operation.method === 'GET')) return { operation, params, known }
  }
  return { operation: undefined, params: {}, known }
}

/** The values of `{name}` segments, undefined where the template does not fit. */
function paramsOf(template: string, path: string): Record<string, string> | undefined {
  const wanted = template.split('/')
  const given = path.split('/')
  if (wanted.length !== given.length) return undefined
  const params: Record<string, string> = {}
  for (const [index, part] of wanted.entries()) {
    const value = given[index] ?? ''
    if (part.startsWith('{') && part.endsWith('}') && value !== '') params[part.slice(1, -1)] = value
    else if (part !== value) return undefined
  }
  return params
}
