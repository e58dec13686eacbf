/** What is measured, one function per question; each gives rows for the table. */
import { randomUUID } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CACHED, LARGE, SMALL, SMALL_BODY } from './answers.ts'
import { ask, fill, load, openLoop } from './load.ts'
import { PROXY_CORE, freePort, processorMs, residentBytes, start, type Started } from './process.ts'
import { ATTACHE, CACHE_HITS, LARGE_ANSWERS, LATENCY, PASS_THROUGH, attache, missing, type Place, type Subject } from './subjects.ts'

export type Row = {
  readonly subject: string
  readonly value: number
  readonly unit: string
  readonly wrong: number
  /** Processor time of the subject per request in its best round: steadier than throughput on a machine others use too. */
  readonly microsPerRequest?: number
  /** What each round gave, in the order of the rounds: round by round, subjects were measured within seconds of each other. */
  readonly rounds?: readonly number[]
  readonly note?: string
}

export type Plan = {
  readonly place: Place
  readonly rounds: number
  readonly seconds: number
  readonly chosen: (subject: string) => boolean
  readonly progress: (line: string) => void
}

/** Hit tests with many entries use this many. */
const MANY_ENTRIES = 100_000
/**
 * Different cacheable answers asked for once each, in steps after which memory is looked at; a tenth of it with --quick. The
 * heap is limited, because without need V8 collects no garbage: what grew without bound would end the process there.
 */
const RANDOM_URLS = { all: 1_000_000, step: 10_000, maxMiB: 64, heapMiB: 192, programMiB: 160 }
const IDLE_SECONDS = 5
/** Some processes stay slower all their life than others of the same program: each subject is measured in two of them, in many short rounds. */
const LIVES = 2
const ROUND_SECONDS = 1
/** Long enough for V8 to compile what is hot at a few thousand requests a second; the more a subject does, the longer that takes. */
const WARM_UP_SECONDS = 4
const OPEN_LOOP_RATE = 1000

/** Requests per second, small answers nobody may store. */
export function passThrough(plan: Plan): Promise<Row[]> {
  return throughput(plan, PASS_THROUGH, SMALL, 64, SMALL_BODY)
}

/** Requests per second, all answered from one stored answer. */
export function cacheHits(plan: Plan): Promise<Row[]> {
  return throughput(plan, CACHE_HITS, CACHED, 64, SMALL_BODY)
}

/** Requests per second, answers of 1 MB, 8 connections. */
export function largeAnswers(plan: Plan): Promise<Row[]> {
  return throughput(plan, LARGE_ANSWERS, LARGE, 8, undefined, 1)
}

/** The sidecar with one stored answer against the sidecar with 100,000 of them. */
export async function manyEntries(plan: Plan, entries = MANY_ENTRIES): Promise<Row[]> {
  if (!plan.chosen(ATTACHE.name)) return []
  return withSubjects(plan, [ATTACHE], async ([one]) => {
    if (one === undefined) return []
    plan.progress(`${one.subject.name}: storing ${entries} answers`)
    await fill(`${one.url}cached`, entries)
    // the same process, the same way of asking: only how many different answers are asked for differs
    const [few, many]: [Round[], Round[]] = [[], []]
    for (let round = 1; round <= plan.rounds; round++) {
      few.push(await timed(plan, one, round, { path: 'cached', connections: 64, expect: SMALL_BODY, spread: 1 }))
      many.push(await timed(plan, one, round, { path: 'cached', connections: 64, expect: SMALL_BODY, spread: entries }))
    }
    const row = best(one, `${ATTACHE.name}, ${entries} entries`, many)
    const sampled = await Promise.all(Array.from({ length: 100 }, (_none, at) => ask(`${one.url}cached/${(at * 997) % entries}`)))
    const hits = sampled.filter((answer) => /;\s*hit/.test(String(answer.headers['cache-status']))).length
    return [
      best(one, `${ATTACHE.name}, 1 entry`, few),
      { ...row, wrong: row.wrong + (hits < 99 ? 1 : 0), note: `${row.note}, ${hits} of 100 looked at are hits` }
    ]
  })
}

/** Whether memory stays within the cache's bound, and what the process needs besides, however many URLs an app makes up. */
export async function randomUrls(plan: Plan): Promise<Row[]> {
  if (!plan.chosen(ATTACHE.name)) return []
  const { step, maxMiB, heapMiB, programMiB } = RANDOM_URLS
  const urls = plan.rounds > 2 ? RANDOM_URLS.all : RANDOM_URLS.all / 10
  const [port, adminPort] = [await freePort(), await freePort()]
  const [node = '', ...args] = attache(plan.place, port, adminPort, 1, `${maxMiB}MiB`)
  const started = await begin([node, `--max-old-space-size=${heapMiB}`, ...args], port, plan, 'attache-random-urls')
  const base = `http://127.0.0.1:${port}${ATTACHE.prefix}`
  await ask(base + SMALL)
  const before = residentBytes(started.pid) ?? 0
  let [resident, stored] = [0, 0]
  for (let asked = step; asked <= urls; asked += step) {
    await fill(`${base}cached/${randomUUID()}`, step)
    resident = Math.max(resident, residentBytes(started.pid) ?? 0)
    stored = Math.max(stored, sum((await ask(`http://127.0.0.1:${adminPort}/metrics`)).body, 'attache_cache_bytes'))
    plan.progress(`attache: ${asked} of ${urls} URLs, ${Math.round(resident / 2 ** 20)} MiB resident at most`)
  }
  const calls = sum((await ask(`http://127.0.0.1:${adminPort}/metrics`)).body, 'attache_attempts_total')
  await started.stop()
  return [
    { subject: 'different answers', value: calls, unit: '', wrong: Math.max(0, urls - calls) },
    { subject: 'stored at most', value: stored / 2 ** 20, unit: 'MiB', wrong: stored > maxMiB * 2 ** 20 ? 1 : 0, note: `maxBytes ${maxMiB} MiB` },
    { subject: 'resident before', value: before / 2 ** 20, unit: 'MiB', wrong: 0 },
    {
      subject: 'resident at most',
      value: resident / 2 ** 20,
      unit: 'MiB',
      wrong: resident > (heapMiB + maxMiB + programMiB) * 2 ** 20 ? 1 : 0,
      note: `limit ${heapMiB + maxMiB + programMiB} MiB: heap ${heapMiB}, bodies ${maxMiB}, program and buffers ${programMiB}`
    }
  ]
}

/** Milliseconds added at 1,000 requests a second, against asking the origin directly. */
export async function latency(plan: Plan): Promise<Row[]> {
  return withSubjects(plan, LATENCY, async (served) => {
    const direct = { name: 'origin', url: `${plan.place.origin}/plain/` }
    const rows: Row[] = []
    for (const { name, url } of [direct, ...served.map((one) => ({ name: one.subject.name, url: one.url }))]) {
      plan.progress(`${name}: ${OPEN_LOOP_RATE}/s open loop`)
      const lowest = { p50Ms: Infinity, p99Ms: Infinity, wrong: 0 }
      for (let round = 0; round < Math.min(2, plan.rounds); round++) {
        const result = await openLoop({ url: url + SMALL, seconds: plan.seconds + 1, connections: 64, rate: OPEN_LOOP_RATE, expect: SMALL_BODY })
        lowest.p50Ms = Math.min(lowest.p50Ms, result.p50Ms)
        lowest.p99Ms = Math.min(lowest.p99Ms, result.p99Ms)
        lowest.wrong += result.wrong
      }
      rows.push(
        { subject: `${name} p50`, value: lowest.p50Ms, unit: 'ms', wrong: lowest.wrong },
        { subject: `${name} p99`, value: lowest.p99Ms, unit: 'ms', wrong: 0 }
      )
    }
    return rows
  })
}

/** Start-up (the best of a few), memory and processor time of the sidecar with nothing to do, then memory under load. */
export async function idle(plan: Plan): Promise<Row[]> {
  if (!plan.chosen(ATTACHE.name)) return []
  const starts: Started[] = []
  const [port, adminPort] = [await freePort(), await freePort()]
  const url = `http://127.0.0.1:${port}${ATTACHE.prefix}${SMALL}`
  for (let round = 0; round < plan.rounds; round++) {
    await starts.at(-1)?.stop()
    starts.push(await begin(ATTACHE.command(plan.place, port, adminPort), port, plan, 'attache-idle'))
  }
  const started = starts.at(-1)
  if (started === undefined) return []
  await ask(url)
  await sleep(2000)
  const before = processorMs(started.pid)
  await sleep(IDLE_SECONDS * 1000)
  const after = processorMs(started.pid)
  const measured: [string, number | undefined, string][] = [
    ['ready after', Math.min(...starts.map((one) => one.readyMs)), 'ms'],
    ['processor until ready', Math.min(...starts.map((one) => one.readyProcessorMs ?? Number.NaN)), 'ms'],
    ['resident', mebibytes(residentBytes(started.pid)), 'MiB'],
    ['resident, anonymous', mebibytes(residentBytes(started.pid, 'RssAnon')), 'MiB'],
    ['processor', before === undefined || after === undefined ? undefined : (after - before) / (IDLE_SECONDS * 10), '%']
  ]
  plan.progress('attache: 64 connections')
  const { wrong } = await load({ url, seconds: plan.seconds * 3, connections: 64, expect: SMALL_BODY })
  measured.push(['resident under load', mebibytes(residentBytes(started.pid)), 'MiB'])
  await started.stop()
  return measured.flatMap(([subject, value, unit]) =>
    value === undefined || Number.isNaN(value) ? [] : [{ subject, value, unit, wrong: subject.endsWith('load') ? wrong : 0 }]
  )
}

function mebibytes(bytes: number | undefined): number | undefined {
  return bytes === undefined ? undefined : bytes / 2 ** 20
}

/** Whether cost grows with configuration: one upstream against 200. */
export async function manyUpstreams(plan: Plan): Promise<Row[]> {
  if (!plan.chosen(ATTACHE.name)) return []
  const sizes = [1, 200]
  const subjects = sizes.map((count): Subject => ({
    ...ATTACHE,
    name: `attache, ${count} upstream${count === 1 ? '' : 's'}`,
    command: (place, port, adminPort) => attache(place, port, adminPort, count)
  }))
  return throughput({ ...plan, chosen: () => true }, subjects, SMALL, 64, SMALL_BODY, 1)
}

/** What no throughput shows: how many calls the provider and the token service got for the app's. */
export async function calls(plan: Plan): Promise<Row[]> {
  if (!plan.chosen(ATTACHE.name)) return []
  const [port, adminPort] = [await freePort(), await freePort()]
  const started = await begin(ATTACHE.command(plan.place, port, adminPort), port, plan, 'attache-calls')
  const asked = async (): Promise<number> => Number((await ask(`${plan.place.tokenService}/count`)).body)
  const tokensBefore = await asked()
  const base = `http://127.0.0.1:${port}${ATTACHE.prefix}`
  plan.progress('attache: 2,000 cold requests at once, half of them for cacheable answers')
  const answers = await Promise.all(Array.from({ length: 2000 }, (_none, at) => ask(at % 2 === 0 ? `${base}cached/calls-${at % 20}` : base + SMALL)))
  const wrong = answers.filter((answer) => answer.status !== 200 || answer.body !== SMALL_BODY).length
  const metrics = (await ask(`http://127.0.0.1:${adminPort}/metrics`)).body
  const tokens = (await asked()) - tokensBefore
  await started.stop()
  return [
    { subject: 'app calls', value: sum(metrics, 'attache_requests_total'), unit: '', wrong },
    { subject: 'provider calls', value: sum(metrics, 'attache_attempts_total'), unit: '', wrong: 0 },
    { subject: 'calls avoided', value: sum(metrics, 'attache_calls_avoided_total'), unit: '', wrong: 0 },
    { subject: 'token requests', value: tokens, unit: '', wrong: tokens === 1 ? 0 : 1 }
  ]
}

type Served = { readonly subject: Subject; readonly url: string; readonly started: Started }

async function throughput(
  plan: Plan,
  subjects: readonly Subject[],
  path: string,
  connections: number,
  expect: string | undefined,
  lives = LIVES
): Promise<Row[]> {
  const rounds = new Map<string, Round[]>(subjects.map((subject) => [subject.name, []]))
  let rows: Row[] = []
  for (let life = 0; life < lives; life++) {
    rows = await withSubjects(plan, subjects, async (served) => {
      for (const one of served) await load({ url: one.url + path, seconds: WARM_UP_SECONDS, connections, expect })
      for (let round = 1; round <= plan.rounds; round++) {
        // there and back, so that nobody always follows the same neighbour
        for (const one of round % 2 === 0 ? served.toReversed() : served)
          rounds.get(one.subject.name)?.push(await timed({ ...plan, seconds: ROUND_SECONDS }, one, life * plan.rounds + round, { path, connections, expect }))
      }
      return served.map((one) => best(one, one.subject.name, rounds.get(one.subject.name) ?? []))
    })
  }
  return rows
}

type Round = { readonly perSecond: number; readonly wrong: number; readonly micros: number | undefined }
type Question = { readonly path: string; readonly connections: number; readonly expect: string | undefined; readonly spread?: number }

async function timed(plan: Plan, one: Served, round: number, question: Question): Promise<Round> {
  const before = processorMs(one.started.pid)
  const { perSecond, wrong } = await load({ ...question, url: one.url + question.path, seconds: plan.seconds })
  const after = processorMs(one.started.pid)
  const micros = before === undefined || after === undefined ? undefined : ((after - before) * 1000) / (perSecond * plan.seconds)
  const cost = micros === undefined ? '' : `, ${micros.toFixed(1)} µs each`
  plan.progress(`round ${round} ${one.subject.name}: ${Math.round(perSecond)}/s${cost}${wrong > 0 ? `, ${wrong} WRONG` : ''}`)
  return { perSecond, wrong, micros }
}

function best(one: Served, subject: string, rounds: readonly Round[]): Row {
  const micros = rounds.flatMap((round) => round.micros ?? [])
  return {
    subject,
    value: Math.max(...rounds.map((round) => round.perSecond)),
    unit: 'req/s',
    wrong: rounds.reduce((sum, round) => sum + round.wrong, 0),
    rounds: rounds.map((round) => round.perSecond),
    ...(micros.length === 0 ? {} : { microsPerRequest: Math.min(...micros) }),
    note: memory(one.started)
  }
}

/** Starts those that are chosen and installed, measures, and ends them whatever happens. */
async function withSubjects(plan: Plan, subjects: readonly Subject[], measure: (served: Served[]) => Promise<Row[]>): Promise<Row[]> {
  const served: Served[] = []
  const absent: Row[] = []
  try {
    for (const subject of subjects.filter((one) => plan.chosen(one.name))) {
      if (missing(subject)) {
        absent.push({ subject: subject.name, value: Number.NaN, unit: '', wrong: 0, note: 'missing: not installed' })
        continue
      }
      const [port, adminPort] = [await freePort(), await freePort()]
      try {
        const started = await begin(subject.command(plan.place, port, adminPort), port, plan, subject.name)
        served.push({ subject, url: `http://127.0.0.1:${port}${subject.prefix}`, started })
      } catch (error) {
        plan.progress(String(error))
        absent.push({ subject: subject.name, value: Number.NaN, unit: '', wrong: 1, note: 'does not start' })
      }
    }
    return [...(await measure(served)), ...absent]
  } finally {
    for (const one of served) await one.started.stop()
  }
}

function begin(command: string[], port: number, plan: Plan, name: string): Promise<Started> {
  mkdirSync(join(plan.place.folder, 'logs'), { recursive: true })
  return start(command, { core: PROXY_CORE, port, logFile: join(plan.place.folder, 'logs', `${name.replaceAll(/\W+/g, '-')}.log`) })
}

function memory(started: Started): string {
  const bytes = residentBytes(started.pid)
  return bytes === undefined ? '' : `${Math.round(bytes / 2 ** 20)} MiB resident`
}

function sum(metrics: string, name: string): number {
  return metrics
    .split('\n')
    .filter((line) => line.startsWith(`${name}{`))
    .reduce((total, line) => total + Number(line.slice(line.lastIndexOf(' ') + 1)), 0)
}
