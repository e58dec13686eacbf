/** What every peer is started with: `node peer.ts PORT ORIGIN`. */
export const port = Number(process.argv[2])
export const origin = new URL(process.argv[3] ?? 'http://127.0.0.1:1')

process.on('SIGTERM', () => process.exit(0))
