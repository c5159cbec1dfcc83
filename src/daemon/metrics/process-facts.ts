/** Facts of the process itself. None of them needs its own timer. */
export interface ProcessFacts {
  readonly cpuSeconds: number;
  readonly residentBytes: number;
  readonly heapUsedBytes: number;
  readonly loopBusySeconds: number;
  readonly lag: LagHistogram;
}

interface LagHistogram {
  /** Cumulative; the last one is unbounded. */
  readonly buckets: readonly { readonly le: number; readonly count: number }[];
  readonly sumSeconds: number;
  readonly count: number;
}

/** Seconds. Membership is notified of a beat that is late by more than 50 ms; the watchdog waits for 20 s. */
const BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** How late a timer of `everyMs` fired. */
export class Lag {
  readonly #everyMs: number;
  readonly #counts = Array.from({ length: BOUNDS.length + 1 }, () => 0);
  #lastMs: number | undefined;
  #sum = 0;

  constructor(everyMs: number) {
    this.#everyMs = everyMs;
  }

  /** The timer fired. @param nowMs monotonic */
  came(nowMs: number): void {
    const last = this.#lastMs;
    this.#lastMs = nowMs;
    if (last === undefined) return;
    const late = Math.max(0, nowMs - last - this.#everyMs) / 1000;
    const bucket = BOUNDS.findIndex((bound) => late <= bound);
    const at = bucket < 0 ? BOUNDS.length : bucket;
    this.#counts[at] = (this.#counts[at] ?? 0) + 1;
    this.#sum += late;
  }

  get histogram(): LagHistogram {
    let count = 0;
    const buckets = [...BOUNDS, Number.POSITIVE_INFINITY].map((le, at) => {
      count += this.#counts[at] ?? 0;
      return { le, count };
    });
    return { buckets, sumSeconds: this.#sum, count };
  }
}

export function processFacts(lag: Lag): ProcessFacts {
  const { user, system } = process.cpuUsage();
  const { rss, heapUsed } = process.memoryUsage();
  return {
    cpuSeconds: (user + system) / 1e6,
    residentBytes: rss,
    heapUsedBytes: heapUsed,
    loopBusySeconds: performance.eventLoopUtilization().active / 1000,
    lag: lag.histogram,
  };
}
