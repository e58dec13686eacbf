/** A process of its own that looks whether a record is there and writes it: `node redis-child.ts URL`. */
import { systemClock } from '../../src/exchange/clock.ts'
import { openStore } from '../../src/state/open-store.ts'

const store = await openStore(process.argv[2] ?? '', {
  clock: systemClock(),
  random: Math.random,
  report: (event) => console.log(event.kind === 'warning' ? event.message : event.kind)
})
if ((await store.get('r')) !== undefined) console.log('found')
await store.put('r', Buffer.from('v'))
console.log('written')
await store.close()
