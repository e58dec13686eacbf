import type { Origins } from './load.ts'
import { toYaml } from './yaml-document.ts'

/** The effective config as YAML, each value with a comment that says where it comes from. */
export function showConfig(origins: Origins): string {
  return toYaml(origins.tree)
}
