import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

export function caddy(folder: string, port: number, origin: string): string[] {
  mkdirSync(folder, { recursive: true })
  const file = join(folder, 'Caddyfile')
  writeFileSync(
    file,
    `{
  admin off
  auto_https off
  log {
    level ERROR
  }
}
http://127.0.0.1:${port} {
  bind 127.0.0.1
  reverse_proxy ${new URL(origin).host} {
    transport http {
      keepalive_idle_conns_per_host 128
    }
  }
}\n`
  )
  return ['env', `XDG_DATA_HOME=${folder}`, `XDG_CONFIG_HOME=${folder}`, 'caddy', 'run', '--config', file, '--adapter', 'caddyfile']
}
