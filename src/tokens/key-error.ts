/** Why a key or certificate cannot be used: names the config key and the way out, never a value. */
export class KeyError extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'KeyError'
  }
}
