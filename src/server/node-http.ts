/**
 * `node:http`, asked for by name instead of imported: an `import` reads every export, one of which (`WebSocket`) then
 * loads Node's own fetch client, 90 ms and 12 MiB for something nobody here uses.
 */
export const { METHODS, STATUS_CODES, ServerResponse, createServer } = process.getBuiltinModule('node:http')
