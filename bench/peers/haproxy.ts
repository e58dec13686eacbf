import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

export function haproxy(folder: string, port: number, origin: string): string[] {
  mkdirSync(folder, { recursive: true })
  const file = join(folder, 'haproxy.cfg')
  writeFileSync(
    file,
    `global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend in
  bind 127.0.0.1:${port}
  default_backend origin
backend origin
  server origin ${new URL(origin).host}\n`
  )
  return ['haproxy', '-db', '-q', '-f', file]
}
