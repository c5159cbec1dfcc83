import { readFileSync } from 'node:fs';
import { loadavg } from 'node:os';

/**
 * Figures in one format for all benchmarks: a line for people each, or with `--json` one object a line and nothing
 * else. The last line says against which of the stated numbers the run fell short. A benchmark that ran to its end has
 * exit code 0 whatever it found: it measures, tests decide.
 */
export type Subject =
  | 'bornemisza'
  | 'serf'
  | 'simulator'
  | 'bare'
  | 'haproxy'
  | 'keepalived'
  | 'keepalived_fast'
  | 'monit'
  | 'certificates'
  | 'dns'
  | 'firewall'
  | 'floating';
type Row = Readonly<Record<string, string | number | boolean | readonly string[]>>;

export interface Times {
  readonly p50: number;
  readonly p99: number;
}

export interface Report {
  /** Milliseconds, one for each sample. */
  times(name: string, n: number, subject: Subject, metric: string, all: readonly number[], more?: Row): Times;
  value(
    name: string,
    n: number,
    subject: Subject,
    metric: string,
    unit: string,
    amount: number,
    more?: Row,
  ): void;
  /** One of the numbers to reach; `what` is listed when it does not hold. */
  expect(holds: boolean, what: string): void;
  /** For people only. */
  say(text: string): void;
  end(): void;
}

/**
 * @param text names, with a comma between them
 * @throws Error on a name that is not in `all`: a run that measures nothing would reach every number
 */
export function chosen<T extends string>(all: readonly T[], text: string): ReadonlySet<T> {
  const names = text.split(',');
  const unknown = names.find((name) => !all.some((known) => known === name));
  if (unknown !== undefined) throw new Error(`"${unknown}" is not known; choose from ${all.join(', ')}`);
  return new Set(all.filter((name) => names.includes(name)));
}

/**
 * @param real the figures are of real processes: each row tells how busy the machine was, by its load average over a
 *   minute
 */
export function createReport(bench: string, json: boolean, real = true): Report {
  const fellShort: string[] = [];
  const print = (figures: Row): void => {
    const row = real ? { ...figures, load: rounded(loadavg()[0] ?? 0) } : figures;
    if (json) return console.log(JSON.stringify({ bench, ...row }));
    const { case: name, n, subject, metric, unit, ...others } = row;
    const head = [String(name).padEnd(8), `n ${String(n).padStart(3)}`, String(subject).padEnd(10)];
    const rest = Object.entries(others).map(([key, value]) => `${key} ${String(value)}`);
    console.log([...head, `${String(metric)} (${String(unit)})`.padEnd(26), ...rest].join('  '));
  };
  return {
    times(name, n, subject, metric, all, more = {}) {
      const round = (value: number): number => Math.round(value);
      const p50 = round(percentile(all, 0.5));
      const p99 = round(percentile(all, 0.99));
      const max = round(Math.max(...all));
      print({ case: name, n, subject, metric, unit: 'ms', p50, p99, max, samples: all.length, ...more });
      return { p50, p99 };
    },
    value(name, n, subject, metric, unit, amount, more = {}) {
      print({ case: name, n, subject, metric, unit, value: Math.round(amount * 100) / 100, ...more });
    },
    expect(holds, what) {
      if (!holds) fellShort.push(what);
    },
    say(text) {
      if (!json) console.log(text);
    },
    end() {
      const busy = real ? { load: rounded(loadavg()[0] ?? 0), pressure: pressure() } : {};
      const summary = { summary: true, ok: fellShort.length === 0, fell_short: fellShort, ...busy };
      if (json) return console.log(JSON.stringify({ bench, ...summary }));
      if (real) console.log(`load ${busy.load}, CPU pressure ${busy.pressure} % (some, avg10)`);
      console.log(fellShort.length === 0 ? 'all numbers reached' : `fell short: ${fellShort.join('; ')}`);
    },
  };
}

function rounded(value: number): number {
  return Math.round(value * 10) / 10;
}

/** How long something waited for a processor, percent of the last ten seconds. -1: this kernel does not say. */
function pressure(): number {
  try {
    return Number(/^some avg10=([\d.]+)/m.exec(readFileSync('/proc/pressure/cpu', 'utf8'))?.[1] ?? -1);
  } catch {
    return -1;
  }
}

/** Nearest rank: of ten samples, the 99th percentile is the largest. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}
