/** Prints the JSON Schema of the config file: `node src/config/print-schema.ts > config/attache.schema.json`. */
import { publishedSchema } from './load.ts'

process.stdout.write(`${JSON.stringify(publishedSchema, null, 2)}\n`)
