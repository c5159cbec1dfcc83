import { parseArgs } from 'node:util';
import {
  measureCalm,
  measureDeaths,
  measureIdleBytes,
  measureStorm,
  measureTags,
  percentile,
} from '../sim/measure.ts';

/** `bench:sim`: the membership machine in virtual time. Each seed is a run of its own; figures are over all of them. */
const { values } = parseArgs({
  options: {
    n: { type: 'string', default: '3,10,30,500' },
    seeds: { type: 'string', default: '3' },
    samples: { type: 'string', default: '40' },
    hours: { type: 'string', default: '1' },
    json: { type: 'boolean', default: false },
  },
});
const sizes = values.n.split(',').map(Number);
const seeds = Array.from({ length: Number(values.seeds) }, (_, index) => index + 1);
const samples = Number(values.samples);
const hours = Number(values.hours);
const fellShort: string[] = [];

type Row = Readonly<Record<string, string | number | boolean | readonly string[]>>;

function print(row: Row): void {
  if (values.json) return console.log(JSON.stringify({ bench: 'sim', ...row }));
  console.log(
    Object.entries(row)
      .map(([key, value]) => `${key} ${String(value)}`)
      .join('  '),
  );
}

function times(
  name: string,
  n: number,
  metric: string,
  all: readonly number[],
): { p50: number; p99: number } {
  const round = (value: number): number => Math.round(value);
  const p50 = round(percentile(all, 0.5));
  const p99 = round(percentile(all, 0.99));
  const max = round(Math.max(...all));
  print({ case: name, n, subject: 'bornemisza', metric, unit: 'ms', p50, p99, max, samples: all.length });
  return { p50, p99 };
}

function value(name: string, n: number, metric: string, unit: string, amount: number, more: Row = {}): void {
  print({
    case: name,
    n,
    subject: 'bornemisza',
    metric,
    unit,
    value: Math.round(amount * 100) / 100,
    ...more,
  });
}

function require(holds: boolean, what: string): void {
  if (!holds) fellShort.push(what);
}

function benchTimes(n: number): void {
  const each = Math.ceil(samples / seeds.length);
  const silent = times(
    'silent',
    n,
    'declared_dead_by_all',
    seeds.flatMap((seed) => measureDeaths(n, each, seed, 'silent')),
  );
  require(silent.p50 <= 2000 && silent.p99 <= 3000, `silent at n = ${n}`);
  const crash = times(
    'crash',
    n,
    'known_to_all',
    seeds.flatMap((seed) => measureDeaths(n, each, seed, 'crash')),
  );
  require(crash.p50 <= 500, `crash at n = ${n}`);
  const tag = times(
    'tag',
    n,
    'known_to_all',
    seeds.flatMap((seed) => measureTags(n, each, seed)),
  );
  require(tag.p50 <= 500, `tag at n = ${n}`);
}

function benchCalm(n: number): void {
  for (const trouble of ['loss10', 'pause1s'] as const) {
    const progress = (hour: number, deaths: number): void => {
      if (!values.json && hour % 10 === 0) console.log(`  ${trouble}: ${hour} hours, ${deaths} false deaths`);
    };
    const calm = measureCalm(n, hours, 11, trouble, progress);
    value(trouble, n, 'false_positives', 'count', calm.falseDeaths, {
      hours,
      suspicions_seen: calm.suspicions,
      gossip_messages: calm.published,
    });
    require(calm.falseDeaths === 0, `${trouble} at n = ${n}`);
  }
}

const bytes = new Map<number, number>();
for (const n of sizes) {
  if (n <= 100) benchTimes(n);
  if (n === 30) {
    benchCalm(n);
    const storm = measureStorm(n, 1);
    value('storm', n, 'converged', 'ms', storm.convergedMs, {
      connections_lost: storm.lostLinks,
      false_positives: storm.deaths,
      gossip_messages: storm.published,
    });
    require(storm.convergedMs <= 3000 && storm.deaths === 0 && storm.lostLinks === 0, `storm at n = ${n}`);
  }
  const idle = measureIdleBytes(n, n > 100 ? 2 : 5, 1);
  bytes.set(n, idle.total);
  value('idle', n, 'bytes_per_s', 'B/s', idle.total, {
    protocol_alone: Math.round(idle.protocol),
    links: Math.round(idle.links * 10) / 10,
  });
}
const [small, large] = [bytes.get(30), bytes.get(500)];
if (small !== undefined) require(small <= 4000, 'bytes at n = 30');
if (small !== undefined && large !== undefined)
  require(large <= 2 * small, 'bytes at n = 500 against n = 30');
print({ summary: true, ok: fellShort.length === 0, fell_short: fellShort });
