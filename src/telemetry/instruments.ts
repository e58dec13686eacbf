import { Counter, Gauge, Histogram, type MetricObjectWithValues, type MetricValueWithName, type Registry } from 'prom-client'

/** At most this many series per metric (contract §5); further label combinations are counted under `other`. */
export const SERIES_PER_METRIC = 2000

/** What a metric is called and told apart by. */
export type Naming = { readonly name: string; readonly help: string; readonly labelNames: readonly string[] }

export type CounterCell = { inc(by?: number): void }
export type GaugeCell = { set(value: number): void; inc(): void; dec(): void }
export type HistogramCell = { observe(value: number): void }

/**
 * prom-client, tamed: it hashes and checks labels anew at every count, which costs more than everything else a request
 * causes here. So a count is one addition on a cell found once, and prom-client is told when somebody looks.
 *
 * Each gives the cell of a combination of label values, in the order of `labelNames`.
 */
export function counter(registry: Registry, naming: Naming): (...values: string[]) => CounterCell {
  const cells = new Cells(naming.labelNames, () => new NumberCell())
  const metric = new Counter({
    ...promNaming(naming),
    registers: [registry],
    collect() {
      metric.reset()
      for (const { labels, cell } of cells.all) metric.inc(labels, cell.value)
    }
  })
  return (...values) => cells.of(values)
}

export function gauge(registry: Registry, naming: Naming): (...values: string[]) => GaugeCell {
  const cells = new Cells(naming.labelNames, () => new NumberCell())
  const metric = new Gauge({
    ...promNaming(naming),
    registers: [registry],
    collect() {
      metric.reset()
      for (const { labels, cell } of cells.all) metric.set(labels, cell.value)
    }
  })
  return (...values) => cells.of(values)
}

/** `bounds`: upper bounds of the buckets, ascending, without infinity. */
export function histogram(registry: Registry, naming: Naming, bounds: readonly number[]): (...values: string[]) => HistogramCell {
  const cells = new Cells(naming.labelNames, () => new Buckets(bounds))
  registry.registerMetric(new CellHistogram(new Histogram({ ...promNaming(naming), registers: [] }), naming, bounds, cells))
  return (...values) => cells.of(values)
}

class NumberCell implements CounterCell, GaugeCell {
  value = 0

  inc(by = 1): void {
    this.value += by
  }
  dec(): void {
    this.value -= 1
  }
  set(value: number): void {
    this.value = value
  }
}

class Buckets implements HistogramCell {
  readonly #bounds: readonly number[]
  /** Per bucket, not summed up; the last one is for what is above every bound. */
  readonly counts: number[]
  sum = 0

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds
    this.counts = Array.from({ length: bounds.length + 1 }, () => 0)
  }

  observe(value: number): void {
    const bounds = this.#bounds
    let at = 0
    while (at < bounds.length && value > (bounds[at] as number)) at += 1
    this.counts[at] = (this.counts[at] as number) + 1
    this.sum += value
  }
}

type Labelled<Cell> = { readonly labels: Record<string, string>; readonly cell: Cell }

/** One level for each label, so that finding a cell puts no key together. */
type Branch<Cell> = Map<string, Branch<Cell> | Cell>

/** The cells of one metric by label values. */
class Cells<Cell extends object> {
  readonly #labelNames: readonly string[]
  readonly #make: () => Cell
  readonly #root: Branch<Cell> = new Map()
  readonly all: Labelled<Cell>[] = []

  constructor(labelNames: readonly string[], make: () => Cell) {
    this.#labelNames = labelNames
    this.#make = make
  }

  of(values: readonly string[]): Cell {
    let at: Branch<Cell> | Cell | undefined = this.#root
    for (const value of values) {
      if (!(at instanceof Map)) break
      at = at.get(value)
    }
    return at === undefined || at instanceof Map ? this.#added(values) : at
  }

  #added(values: readonly string[]): Cell {
    // the names come from outside: whatever is beyond the bound shares one cell
    const others = this.#labelNames.map(() => 'other')
    if (this.all.length >= SERIES_PER_METRIC - 1 && values.join('\0') !== others.join('\0')) return this.of(others)
    const cell = this.#make()
    this.all.push({ labels: Object.fromEntries(this.#labelNames.map((name, at) => [name, values[at] ?? ''])), cell })
    let branch = this.#root
    for (const value of values.slice(0, -1)) {
      const next = branch.get(value)
      const known = next instanceof Map ? next : new Map<string, Branch<Cell> | Cell>()
      branch.set(value, known)
      branch = known
    }
    branch.set(values.at(-1) ?? '', cell)
    return cell
  }
}

/** A histogram that is counted elsewhere; `plain` is one of the same name that nobody observes, for what it says of itself. */
class CellHistogram extends Histogram {
  readonly #plain: Histogram
  readonly #bounds: readonly number[]
  readonly #cells: Cells<Buckets>

  constructor(plain: Histogram, naming: Naming, bounds: readonly number[], cells: Cells<Buckets>) {
    super({ ...promNaming(naming), registers: [] })
    this.#plain = plain
    this.#bounds = bounds
    this.#cells = cells
  }

  override async get(): Promise<MetricObjectWithValues<MetricValueWithName<string>>> {
    const described = await this.#plain.get()
    const values: MetricValueWithName<string>[] = []
    for (const { labels, cell } of this.#cells.all) {
      let below = 0
      for (let at = 0; at <= this.#bounds.length; at++) {
        below += cell.counts[at] as number
        values.push({ metricName: `${described.name}_bucket`, labels: { le: this.#bounds[at] ?? '+Inf', ...labels }, value: below })
      }
      values.push({ metricName: `${described.name}_sum`, labels, value: cell.sum }, { metricName: `${described.name}_count`, labels, value: below })
    }
    return { ...described, values }
  }

  /** What the registry asks in place of `get` where it is there. */
  getForPromString(): Promise<MetricObjectWithValues<MetricValueWithName<string>>> {
    return this.get()
  }
}

function promNaming({ name, help, labelNames }: Naming): { name: string; help: string; labelNames: string[] } {
  return { name, help, labelNames: [...labelNames] }
}
