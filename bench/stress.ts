/** What the sidecar does under more than it was made for: each function one question, with rows for the table. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { AUTHORIZED_PREFIX, SMALL, SMALL_BODY } from './answers.ts'
import type { CrowdOptions, CrowdResult } from './crowd.ts'
import { ask, load, openLoop } from './load.ts'
import { OTHER_CORE, PROXY_CORE, freePort, residentBytes, run, start, type Started } from './process.ts'
import type { Plan, Row } from './scenarios.ts'
import { ATTACHE } from './subjects.ts'

const MIB = 2 ** 20
const BURST = 5000
const TRANSFER_BYTES = 1024 * MIB
const READERS = 1000
const READER_BYTES = 10 * MIB
const SLOW = { everyMs: 500, forMs: 5000 }
const OVERLOAD = 2
const OVERLOAD_CONNECTIONS = 512

/** 5,000 callers who connect at the same moment, and those who were there before. */
export function storm(plan: Plan): Promise<Row[]> {
  return withSidecar(plan, 'storm', async ({ url, started }) => {
    const before = resident(started)
    plan.progress(`${BURST} connections at once`)
    const { answer, peak } = await peakWhile(started, crowd({ url: url + SMALL, callers: BURST }))
    return [
      { subject: 'connections served', value: answer.served, unit: `of ${BURST}`, wrong: BURST - answer.served },
      { subject: 'the last one after', value: answer.lastMs, unit: 'ms', wrong: 0 },
      { subject: 'memory added', value: (peak - before) / MIB, unit: 'MiB', wrong: 0 }
    ]
  })
}

/** One body of 1 GiB each way. */
export async function transfer(plan: Plan): Promise<Row[]> {
  const rows: Row[] = []
  for (const direction of ['down', 'up'] as const) {
    rows.push(
      ...(await withSidecar(plan, `transfer-${direction}`, async ({ url, started }) => {
        const before = resident(started)
        const from = performance.now()
        plan.progress(`1 GiB ${direction}`)
        const { answer, peak } = await peakWhile(started, direction === 'down' ? download(`${url}stream/${TRANSFER_BYTES}`) : upload(`${url}stream`))
        const seconds = (performance.now() - from) / 1000
        return [
          { subject: `1 GiB ${direction}`, value: TRANSFER_BYTES / MIB / seconds, unit: 'MiB/s', wrong: answer === TRANSFER_BYTES ? 0 : 1 },
          { subject: `memory added by 1 GiB ${direction}`, value: (peak - before) / MIB, unit: 'MiB', wrong: 0 }
        ]
      }))
    )
  }
  return rows
}

/** 1,000 callers who take 10 MiB each, slowly. */
export function slowReaders(plan: Plan): Promise<Row[]> {
  return withSidecar(plan, 'slow-readers', async ({ url, started }) => {
    const before = resident(started)
    plan.progress(`${READERS} slow readers of 10 MiB each`)
    const { answer, peak } = await peakWhile(started, crowd({ url: `${url}stream/${READER_BYTES}`, callers: READERS, slow: SLOW }))
    return [
      { subject: 'readers served', value: answer.served, unit: `of ${READERS}`, wrong: READERS - answer.served },
      { subject: 'memory added', value: (peak - before) / MIB, unit: 'MiB', wrong: 0 }
    ]
  })
}

/** Twice as many requests as it can carry out: what is still carried out, and what is kept waiting takes of memory. */
export function overload(plan: Plan): Promise<Row[]> {
  return withSidecar(plan, 'overload', async ({ url, started }) => {
    await load({ url: url + SMALL, seconds: 2, connections: 64, expect: SMALL_BODY })
    const capacity = await load({ url: url + SMALL, seconds: plan.seconds, connections: OVERLOAD_CONNECTIONS, expect: SMALL_BODY })
    const before = resident(started)
    plan.progress(`${Math.round(capacity.perSecond)}/s is what it can do, ${OVERLOAD} × that is asked for`)
    const options = { url: url + SMALL, seconds: plan.seconds, connections: OVERLOAD_CONNECTIONS, rate: capacity.perSecond * OVERLOAD, expect: SMALL_BODY }
    const { answer, peak } = await peakWhile(started, openLoop(options))
    return [
      { subject: 'at capacity', value: capacity.perSecond, unit: '/s', wrong: capacity.wrong },
      // `wrong` of the generator counts what it had no connection left to ask for
      { subject: `at ${OVERLOAD} × capacity`, value: answer.perSecond, unit: '/s', wrong: 0 },
      { subject: 'memory added', value: (peak - before) / MIB, unit: 'MiB', wrong: 0 }
    ]
  })
}

type Served = { readonly url: string; readonly started: Started }

/** A sidecar of its own for each question, so that one does not start with the memory of the other. */
async function withSidecar(plan: Plan, name: string, measure: (served: Served) => Promise<Row[]>): Promise<Row[]> {
  if (!plan.chosen(ATTACHE.name)) return []
  const [port, adminPort, streamsPort] = [await freePort(), await freePort(), await freePort()]
  mkdirSync(join(plan.place.folder, 'logs'), { recursive: true })
  const options = (of: string, on: number, core: number) => ({ core, port: on, logFile: join(plan.place.folder, 'logs', `${of}.log`) })
  const streams = await start(
    [process.execPath, join(import.meta.dirname, 'peers/streams.ts'), String(streamsPort)],
    options(`streams-${name}`, streamsPort, OTHER_CORE)
  )
  const file = join(plan.place.folder, `${name}.yaml`)
  writeFileSync(file, config(plan, port, adminPort, streamsPort), { mode: 0o600 })
  const command = [process.execPath, plan.place.main, 'run', '--config', file]
  try {
    const started = await start(command, options(`attache-${name}`, port, PROXY_CORE))
    try {
      const url = `http://127.0.0.1:${port}/`
      await ask(`${url}bench/${SMALL}`)
      await ask(`${url}streams/stream/100000`)
      return await measure({ url: name === 'storm' || name === 'overload' ? `${url}bench/` : `${url}streams/`, started })
    } finally {
      await started.stop()
    }
  } finally {
    await streams.stop()
  }
}

function config({ place }: Plan, port: number, adminPort: number, streamsPort: number): string {
  return `version: 1
listen: 127.0.0.1:${port}
admin: { listen: 127.0.0.1:${adminPort} }
state: "memory:"
limits: { connections: ${BURST + 100}, bodyBytes: 2GiB }
drain: 1s
credentials:
  bench: { grant: client_credentials, tokenUrl: "${place.tokenService}/token", clientId: bench, clientSecret: bench-secret, clientAuth: client_secret_basic }
upstreams:
  bench:
    baseUrl: ${place.origin}${AUTHORIZED_PREFIX}
    credential: bench
    volume: { queue: ${BURST} }
  streams:
    baseUrl: http://127.0.0.1:${streamsPort}/
    credential: bench
    volume: { concurrency: ${READERS + 100} }
`
}

async function crowd(options: CrowdOptions): Promise<CrowdResult> {
  return JSON.parse(await run([process.execPath, join(import.meta.dirname, 'crowd.ts'), JSON.stringify(options)], OTHER_CORE))
}

function resident(started: Started): number {
  return residentBytes(started.pid) ?? Number.NaN
}

/** The most the process held while something went on. */
async function peakWhile<Answer>(started: Started, work: Promise<Answer>): Promise<{ answer: Answer; peak: number }> {
  let peak = resident(started)
  const looking = setInterval(() => (peak = Math.max(peak, residentBytes(started.pid) ?? 0)), 20)
  try {
    const answer = await work
    return { answer, peak }
  } finally {
    clearInterval(looking)
  }
}

/** How many bytes came. */
function download(url: string): Promise<number> {
  return new Promise((resolve, reject) => {
    request(url, { agent: false }, (answer) => {
      let received = 0
      answer.on('data', (piece: Buffer) => (received += piece.length))
      answer.on('end', () => resolve(received))
      answer.on('error', reject)
    })
      .on('error', reject)
      .end()
  })
}

/** How many bytes the provider says it got. */
function upload(url: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const piece = Buffer.alloc(64 * 1024, 'a')
    const asking = request(url, { method: 'POST', agent: false, headers: { 'content-length': TRANSFER_BYTES } }, (answer) => {
      let text = ''
      answer.setEncoding('latin1').on('data', (more: string) => (text += more))
      answer.on('end', () => resolve(Number(text)))
      answer.on('error', reject)
    })
    asking.on('error', reject)
    let left = TRANSFER_BYTES
    function more(): void {
      while (left > 0) {
        left -= piece.length
        if (!asking.write(piece)) return
      }
      asking.off('drain', more)
      asking.end()
    }
    asking.on('drain', more)
    more()
  })
}
