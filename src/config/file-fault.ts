const FAULTS: Readonly<Record<string, string>> = {
  ENOENT: 'does not exist',
  ENOTDIR: 'does not exist',
  EACCES: 'may not be read by this user',
  EPERM: 'may not be read by this user',
  EISDIR: 'is a directory',
  ELOOP: 'is a link that leads nowhere'
}

/** Why a file cannot be read, in words to put behind its name; undefined where the error is no error of the file system. */
export function fileFault(error: unknown): string | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return typeof code === 'string' ? (FAULTS[code] ?? `cannot be read (${code})`) : undefined
}
