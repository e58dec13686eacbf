/** nginx three times: as the origin, as a plain proxy, as a cache. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { AUTHORIZED_PREFIX, BENCH_TOKEN, LARGE_BYTES, OPEN_PREFIX, SMALL_BODY } from '../answers.ts'

/** Writes a configuration below `folder` and gives the command that runs it in the foreground. */
export function nginxOrigin(folder: string, port: number): string[] {
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'large'), Buffer.alloc(LARGE_BYTES, 'a'))
  return nginx(
    folder,
    `server {
      listen 127.0.0.1:${port} backlog=1024;
      default_type application/json;
      location ${OPEN_PREFIX} { add_header Cache-Control no-store; return 200 '${SMALL_BODY}'; }
      location ${OPEN_PREFIX}cached/ { add_header Cache-Control max-age=86400; return 200 '${SMALL_BODY}'; }
      location = ${OPEN_PREFIX}large { add_header Cache-Control no-store; alias ${join(folder, 'large')}; }
      location ${AUTHORIZED_PREFIX} {
        if ($http_authorization != "Bearer ${BENCH_TOKEN}") { return 401; }
        rewrite ^${AUTHORIZED_PREFIX}(.*)$ ${OPEN_PREFIX}$1 last;
      }
    }`
  )
}

export function nginxProxy(folder: string, port: number, origin: string, cache: boolean): string[] {
  const { host } = new URL(origin)
  return nginx(
    folder,
    `upstream origin { server ${host}; keepalive 128; keepalive_requests 1000000000; }
    ${cache ? `proxy_cache_path ${join(folder, 'cache')} keys_zone=cache:64m max_size=512m inactive=1d;` : ''}
    server {
      listen 127.0.0.1:${port} backlog=1024;
      location / {
        proxy_pass http://origin;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        ${cache ? 'proxy_cache cache; add_header X-Cache $upstream_cache_status;' : ''}
      }
    }`
  )
}

function nginx(folder: string, servers: string): string[] {
  mkdirSync(join(folder, 'tmp'), { recursive: true })
  const file = join(folder, 'nginx.conf')
  // one process and no master, so that one process identifier is the whole of it
  writeFileSync(
    file,
    `daemon off; master_process off; pid ${join(folder, 'nginx.pid')}; error_log stderr crit;
    events { worker_connections 4096; }
    http {
      access_log off; keepalive_requests 1000000000; sendfile on; tcp_nopush on;
      client_body_temp_path ${join(folder, 'tmp/body')}; proxy_temp_path ${join(folder, 'tmp/proxy')};
      fastcgi_temp_path ${join(folder, 'tmp/f')}; uwsgi_temp_path ${join(folder, 'tmp/u')}; scgi_temp_path ${join(folder, 'tmp/s')};
      ${servers}
    }\n`
  )
  return ['nginx', '-p', folder, '-c', file, '-e', 'stderr']
}
