/** What the app heard back; `waited` is provider milliseconds, as `Server-Timing` tells. */
export type Heard = {
  readonly status: number
  readonly body: string
  readonly location: string | undefined
  readonly problem: string | undefined
  readonly attempts: number
  readonly waitedMs: number
  readonly retryAfterS: number
}

/** What the app did at one base URL. */
export type Tally = { asked: number; waitedMs: number; answers: Record<string, number> }

export type DemoApp = {
  ask(name: string, path: string, init?: { method?: string; json?: unknown }): Promise<Heard>
  tally(name: string): Tally
}

/**
 * An app as anybody would write it: `fetch` and a base URL by name. It has no token, no secret, no retry, no cache, and
 * does not know that there is a sidecar (it only reads two fields of the answers to tell what happened).
 */
export function demoApp(bases: Readonly<Record<string, string>>): DemoApp {
  const tallies = new Map<string, Tally>()

  function tally(name: string): Tally {
    const known = tallies.get(name)
    if (known !== undefined) return known
    const fresh = { asked: 0, waitedMs: 0, answers: {} }
    tallies.set(name, fresh)
    return fresh
  }

  async function ask(name: string, path: string, init: { method?: string; json?: unknown } = {}): Promise<Heard> {
    const { method = 'GET', json } = init
    const counted = tally(name)
    counted.asked++
    const headers = { Accept: 'application/json', ...(json === undefined ? {} : { 'Content-Type': 'application/json' }) }
    const url = new URL(path.replace(/^\/(?!\/)/, ''), path.startsWith('/') ? `${bases[name]}/` : bases[name])
    const response = await fetch(url, { method, headers, ...(json === undefined ? {} : { body: JSON.stringify(json) }) })
    const body = await response.text()
    const waitedMs = Number(/wait;dur=([\d.]+)/.exec(response.headers.get('server-timing') ?? '')?.[1] ?? 0)
    counted.waitedMs += waitedMs
    counted.answers[response.status] = (counted.answers[response.status] ?? 0) + 1
    return {
      status: response.status,
      body,
      waitedMs,
      location: response.headers.get('location') ?? undefined,
      problem: /"type":"urn:attache:problem:([\w-]+)"/.exec(body)?.[1],
      attempts: Number(response.headers.get('attache-attempts') ?? 0),
      retryAfterS: Number(response.headers.get('retry-after') ?? 0)
    }
  }
  return { ask, tally }
}
