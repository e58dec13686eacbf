/** Load for one subject: wrk where installed, else our own generator. Answers are checked while the time runs. */
import { rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { GeneratorOptions, GeneratorResult } from './generator.ts'
import { OTHER_CORE, installed, run } from './process.ts'

export const WRK = installed('wrk')

/** A machine too slow to fill a cache in this time would not measure anything either. */
const FILL_SECONDS = 60

export type LoadOptions = {
  readonly url: string
  readonly seconds: number
  readonly connections: number
  readonly expect: string | undefined
  readonly spread?: number
}

export type Load = { readonly perSecond: number; readonly p99Ms: number; readonly wrong: number }

/** As many requests as go. */
export async function load(options: LoadOptions): Promise<Load> {
  if (!WRK) return generated({ ...options, rate: 0, spread: options.spread ?? 0 })
  const checker = checking(options)
  const printed = await wrk(options)
  const wrongChecks = await checker.end()
  return { perSecond: printed.perSecond, p99Ms: printed.p99Ms, wrong: printed.wrong + wrongChecks }
}

/** A fixed number of requests per second, for latencies. */
export function openLoop(options: LoadOptions & { rate: number }): Promise<GeneratorResult> {
  return generated({ ...options, spread: 0 })
}

/** Asks for every resource below the path once: fills a cache before its hits are counted. */
export async function fill(url: string, spread: number): Promise<void> {
  await generated({ url, seconds: FILL_SECONDS, connections: 32, rate: 0, expect: undefined, spread, atMost: spread })
}

async function generated(options: GeneratorOptions): Promise<GeneratorResult> {
  return JSON.parse(await run([process.execPath, join(import.meta.dirname, 'generator.ts'), JSON.stringify(options)], OTHER_CORE))
}

async function wrk(options: LoadOptions): Promise<Load> {
  const script = join(tmpdir(), `attache-bench-${process.pid}.lua`)
  // a different resource each time, in no order a cache could profit from
  const spread = options.spread ?? 0
  if (spread > 0) {
    const path = new URL(options.url).pathname
    writeFileSync(script, `local n = 0\nrequest = function() n = (n + 61803) % ${spread}; return wrk.format('GET', '${path}/' .. n) end\n`)
  }
  const printed = await run(
    ['wrk', '-t1', `-c${options.connections}`, `-d${options.seconds}s`, '--latency', '--timeout', '10s', ...(spread > 0 ? ['-s', script] : []), options.url],
    OTHER_CORE
  )
  rmSync(script, { force: true })
  const refused = Number(/Non-2xx or 3xx responses: (\d+)/.exec(printed)?.[1] ?? 0)
  const errors = /Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(printed)
  const broken = errors === null ? 0 : errors.slice(1).reduce((sum, count) => sum + Number(count), 0)
  const perSecond = Number(/Requests\/sec:\s+([\d.]+)/.exec(printed)?.[1])
  const p99 = /99%\s+([\d.]+)(us|ms|s)/.exec(printed)
  if (!(perSecond > 0)) throw new Error(`wrk says nothing useful:\n${printed}`)
  return { perSecond, p99Ms: p99 === null ? Number.NaN : Number(p99[1]) * ({ us: 0.001, ms: 1, s: 1000 }[p99[2] ?? ''] ?? Number.NaN), wrong: refused + broken }
}

// wrk counts statuses but does not look at bodies: one more connection compares them, some twenty a second
function checking(options: LoadOptions): { end(): Promise<number> } {
  const url = (options.spread ?? 0) > 0 ? `${options.url}/0` : options.url
  let stopped = false
  async function loop(): Promise<number> {
    let wrong = 0
    while (!stopped) {
      const right = await ask(url).then(
        (answer) => answer.status === 200 && (options.expect === undefined || answer.body === options.expect),
        () => false
      )
      if (!right) wrong += 1
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    return wrong
  }
  const looping = loop()
  return {
    end() {
      stopped = true
      return looping
    }
  }
}

export function ask(url: string): Promise<{ status: number; headers: NodeJS.Dict<string | string[]>; body: string }> {
  return new Promise((resolve, reject) => {
    request(url, { agent: false }, (answer) => {
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.push(chunk))
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: Buffer.concat(chunks).toString() }))
      answer.on('error', reject)
    })
      .on('error', reject)
      .end()
  })
}
