const METHODS = ['get', 'put', 'post', 'delete', 'options', 'head', 'patch', 'trace', 'query']

/**
 * The operations of an OpenAPI description (3.x, 2.0; already parsed from JSON or YAML) as `METHOD /template` patterns.
 *
 * Path parameters that are only part of a segment (`/items/{id}.json`) become `*`. The base paths of `servers` are
 * ignored: paths count from behind the upstream's prefix. Throws a plain `Error` saying what is wrong where the document
 * lists no operation, because a broken description must not mean that everything, or nothing, is allowed.
 */
export function operationsFromOpenapi(document: unknown): string[] {
  if (!isObject(document) || (!('openapi' in document) && !('swagger' in document)))
    throw new Error('this is no openapi description: neither openapi nor swagger says its version')
  const paths = document['paths']
  if (!isObject(paths)) throw new Error('the openapi description has no paths')
  const operations = Object.entries(paths)
    .filter(([template]) => template.startsWith('/'))
    .flatMap(([template, item]) => methodsOf(item).map((method) => `${method} ${simplified(template)}`))
  if (operations.length === 0) throw new Error('the openapi description lists no operation')
  return operations
}

function methodsOf(item: unknown): string[] {
  if (!isObject(item)) return []
  // OpenAPI 3.2 has a place of its own for methods it does not know
  const additional = isObject(item['additionalOperations']) ? Object.keys(item['additionalOperations']) : []
  return [...METHODS.filter((method) => isObject(item[method])).map((method) => method.toUpperCase()), ...additional]
}

function simplified(template: string): string {
  return template
    .split('/')
    .map((segment) => (/^\{[^{}]+\}$/.test(segment) ? segment : segment.replaceAll(/\{[^{}]*\}/g, '*').replaceAll(/\*{2,}/g, '*')))
    .join('/')
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null
}
