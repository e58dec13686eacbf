import { createHash } from 'node:crypto'
import { inspect } from 'node:util'

/**
 * A secret that cannot be printed by accident: every way of turning it into text gives `[secret]`. Whoever needs the
 * value says `reveal()`, which is easy to find in review.
 */
export class Secret {
  readonly #value: string

  constructor(value: string) {
    this.#value = value
  }

  reveal(): string {
    return this.#value
  }

  /** The first 8 hex digits of the value's SHA-256: enough to tell two secrets apart, useless to an attacker. */
  fingerprint(): string {
    return fingerprint(this.#value)
  }

  toString(): string {
    return '[secret]'
  }

  toJSON(): string {
    return '[secret]'
  }

  [inspect.custom](): string {
    return '[secret]'
  }
}

/** The first 8 hex digits of SHA-256. */
export function fingerprint(value: string | Uint8Array): string {
  return createHash('sha256').update(value).digest('hex').slice(0, 8)
}

/** A secret that may change while the process runs (a file re-read, a Kubernetes symlink swap). */
export type SecretSource = {
  /** How the config refers to it, `${NAME}` or `file:/path`: safe to print. */
  readonly reference: string
  /** The current value; re-reads a file when it has changed. Throws a `ConfigError` where it cannot be read at first; keeps the last good value afterwards. */
  read(): Secret
}
