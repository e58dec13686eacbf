import type { Config } from './schema.ts'

export function explain(config: Config, method: string, path: string): unknown {
  return { method, path, upstreams: Object.keys(config.upstreams) }
}
