import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { runHours } from '../sim/hours.ts';
import {
  type FalseDeath,
  measureDeaths,
  measureIdleBytes,
  measureStorm,
  measureTags,
  TROUBLES,
  type Trouble,
} from '../sim/measure.ts';
import { chosen, createReport, type Times } from './report.ts';

/**
 * `bench:sim`: the membership machine in virtual time. Each seed is a run of its own; figures are over all of them.
 * `--cases loss10 --hours 1000 --state DIRECTORY`: the hours are run in pieces of `--piece-hours` with a seed each,
 * from `--from-seed` on, and the next such call goes on where this one ended. What is said of a false death names the
 * seed of its piece: `--hours 1 --from-seed SEED`, without `--state`, shows it again.
 */
const CASES = ['times', ...TROUBLES, 'storm', 'idle'] as const;
const { values } = parseArgs({
  options: {
    n: { type: 'string', default: '3,10,30,500' },
    seeds: { type: 'string', default: '3' },
    samples: { type: 'string', default: '40' },
    cases: { type: 'string', default: CASES.join(',') },
    hours: { type: 'string', default: '1' },
    'piece-hours': { type: 'string', default: '1' },
    state: { type: 'string' },
    'from-seed': { type: 'string', default: '1' },
    json: { type: 'boolean', default: false },
  },
});
const sizes = values.n.split(',').map(Number);
const firstSeed = Number(values['from-seed']);
const seeds = Array.from({ length: Number(values.seeds) }, (_, index) => firstSeed + index);
const samples = Number(values.samples);
const hours = Number(values.hours);
const pieceHours = Math.min(hours, Number(values['piece-hours']));
const cases = chosen(CASES, values.cases);
const report = createReport('sim', values.json, false);

function benchTimes(n: number): void {
  const each = Math.ceil(samples / seeds.length);
  const times = (name: string, metric: string, measure: (seed: number) => number[]): Times =>
    report.times(name, n, 'bornemisza', metric, seeds.flatMap(measure));
  const silent = times('silent', 'declared_dead_by_all', (seed) => measureDeaths(n, each, seed, 'silent'));
  report.expect(silent.p50 <= 2000 && silent.p99 <= 3000, `silent at n = ${n}`);
  const crash = times('crash', 'known_to_all', (seed) => measureDeaths(n, each, seed, 'crash'));
  report.expect(crash.p50 <= 500, `crash at n = ${n}`);
  const tag = times('tag', 'known_to_all', (seed) => measureTags(n, each, seed));
  report.expect(tag.p50 <= 500, `tag at n = ${n}`);
}

function benchCalm(n: number, trouble: Trouble): void {
  const startedMs = performance.now();
  let pieces = 0;
  let said = 0;
  if (values.state !== undefined) mkdirSync(values.state, { recursive: true });
  const tally = runHours({
    nodes: n,
    trouble,
    firstSeed,
    hours,
    pieceHours,
    ...(values.state === undefined
      ? {}
      : { stateFile: join(values.state, `n${n}-${trouble}-from-${firstSeed}.json`) }),
    progress: ({ hours: done, falseDeaths }) => {
      pieces += 1;
      for (const death of falseDeaths.slice(said)) report.say(`  ${trouble}: ${describe(death)}`);
      said = falseDeaths.length;
      const secondsEach = (performance.now() - startedMs) / 1000 / (pieces * pieceHours);
      if (done % 10 === 0)
        report.say(
          `  ${trouble}: ${done} of ${hours} hours, ${said} false deaths, ${secondsEach.toFixed(1)} s an hour`,
        );
    },
  });
  report.value(trouble, n, 'bornemisza', 'false_positives', 'count', tally.falseDeaths.length, {
    hours: tally.hours,
    suspicions_seen: tally.suspicions,
    gossip_messages: tally.published,
  });
  report.expect(tally.falseDeaths.length === 0, `${trouble} at n = ${n}`);
}

function describe(death: FalseDeath & { readonly seed: number }): string {
  const { seed, atMs, by, subject, why } = death;
  return `false death: seed ${seed} at ${(atMs / 1000).toFixed(3)} s, ${by} holds ${subject} for dead (${why})`;
}

function benchStorm(n: number): void {
  const storm = measureStorm(n, 1);
  report.value('storm', n, 'bornemisza', 'connections_lost', 'count', storm.lostLinks);
  report.value('storm', n, 'bornemisza', 'false_positives', 'count', storm.deaths);
  report.times('storm', n, 'bornemisza', 'converged', [storm.convergedMs]);
  report.expect(
    storm.convergedMs <= 3000 && storm.deaths === 0 && storm.lostLinks === 0,
    `storm at n = ${n}`,
  );
}

const bytes = new Map<number, number>();

function benchIdle(n: number): void {
  const idle = measureIdleBytes(n, n > 100 ? 2 : 5, 1);
  bytes.set(n, idle.perSecond);
  report.value('idle', n, 'bornemisza', 'bytes_per_s', 'B/s', idle.perSecond, {
    links: Math.round(idle.links * 10) / 10,
  });
}

for (const n of sizes) {
  if (cases.has('times') && n <= 100) benchTimes(n);
  if (n === 30) {
    for (const trouble of TROUBLES) if (cases.has(trouble)) benchCalm(n, trouble);
    if (cases.has('storm')) benchStorm(n);
  }
  if (cases.has('idle')) benchIdle(n);
}
const [small, large] = [bytes.get(30), bytes.get(500)];
if (small !== undefined) report.expect(small <= 4000, 'bytes at n = 30');
if (small !== undefined && large !== undefined)
  report.expect(large <= 2 * small, 'bytes at n = 500 against n = 30');
report.end();
