/**
 * A process of its own that works on a state file, for tests of several processes on one file:
 * `node sqlite-child.ts FILE TASK NAME COUNT`. Prints a line per step; a line means the step is done and durable.
 */
import { systemClock } from '../../src/exchange/clock.ts'
import { openStore } from '../../src/state/open-store.ts'

const [file = '', task = '', name = '', count = '0'] = process.argv.slice(2)
const clock = systemClock()
const store = await openStore(`sqlite:${file}`, { clock, random: Math.random, report: (event) => say(`event ${JSON.stringify(event)}`) })

function say(line: string): void {
  process.stdout.write(`${line}\n`)
}

async function add(): Promise<void> {
  for (let n = 0; n < Number(count); n++) await store.add('n', 1, 600_000)
}

/** A read and a write apart from each other: loses updates unless the lock keeps the others out. */
async function incrementUnderLock(): Promise<void> {
  for (let done = 0; done < Number(count);) {
    const lock = await store.lock('l', 60_000)
    if (lock === undefined) {
      await clock.sleep(2)
      continue
    }
    const value = Number((await store.get('value')) ?? 0)
    await clock.sleep(1)
    if (!(await store.put('value', Buffer.from(String(value + 1)), { fence: lock.fence }))) say('fenced out')
    say(`fence ${lock.fence}`)
    await lock.release()
    done++
  }
}

async function putUntilKilled(): Promise<void> {
  for (let n = Number(count); ; n++) {
    await store.put(name, Buffer.from(String(n)))
    say(`put ${n}`)
  }
}

async function holdLock(): Promise<void> {
  const lock = await store.lock('l', 600_000)
  say(`locked ${lock?.fence}`)
  await clock.sleep(600_000)
}

async function remember(): Promise<void> {
  const before = await store.get(name)
  await store.put(name, Buffer.from('remembered'))
  say(`before ${before?.toString()} after ${(await store.get(name))?.toString()}`)
}

say('open')
const tasks: Record<string, () => Promise<void>> = { add, incrementUnderLock, putUntilKilled, holdLock, remember }
await tasks[task]?.()
await store.close()
