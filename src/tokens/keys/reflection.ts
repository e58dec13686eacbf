/**
 * The three functions of the withdrawn "reflect metadata" proposal that the injection container inside @peculiar/x509
 * refuses to load without. Imported for its effect, before that package, in its one room.
 */
const metadata = new WeakMap<object, Map<unknown, unknown>>()

function getOwnMetadata(key: unknown, target: object): unknown {
  return metadata.get(target)?.get(key)
}

function getMetadata(key: unknown, target: object | null): unknown {
  for (let owner = target; owner !== null; owner = Object.getPrototypeOf(owner)) {
    const found = getOwnMetadata(key, owner)
    if (found !== undefined) return found
  }
  return undefined
}

function defineMetadata(key: unknown, value: unknown, target: object): void {
  const own = metadata.get(target) ?? new Map<unknown, unknown>()
  metadata.set(target, own.set(key, value))
}

for (const polyfill of [getOwnMetadata, getMetadata, defineMetadata]) {
  // A real implementation, where the process has one, stays.
  if (!(polyfill.name in Reflect)) Object.defineProperty(Reflect, polyfill.name, { value: polyfill, configurable: true, writable: true })
}
