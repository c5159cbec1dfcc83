import { parseArgs } from 'node:util';
import { measureCalm, measureDeaths, measureIdleBytes, measureStorm, measureTags } from '../sim/measure.ts';
import { createReport, type Times } from './report.ts';

/** `bench:sim`: the membership machine in virtual time. Each seed is a run of its own; figures are over all of them. */
const { values } = parseArgs({
  options: {
    n: { type: 'string', default: '3,10,30,500' },
    seeds: { type: 'string', default: '3' },
    samples: { type: 'string', default: '40' },
    hours: { type: 'string', default: '1' },
    'from-seed': { type: 'string', default: '1' },
    json: { type: 'boolean', default: false },
  },
});
const sizes = values.n.split(',').map(Number);
const firstSeed = Number(values['from-seed']);
const seeds = Array.from({ length: Number(values.seeds) }, (_, index) => firstSeed + index);
const samples = Number(values.samples);
const hours = Number(values.hours);
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

function benchCalm(n: number): void {
  for (const trouble of ['loss10', 'pause1s'] as const) {
    const calm = measureCalm(n, hours, firstSeed + 10, trouble, (hour, deaths) => {
      if (hour % 10 === 0) report.say(`  ${trouble}: ${hour} hours, ${deaths} false deaths`);
    });
    report.value(trouble, n, 'bornemisza', 'false_positives', 'count', calm.falseDeaths, {
      hours,
      suspicions_seen: calm.suspicions,
      gossip_messages: calm.published,
    });
    report.expect(calm.falseDeaths === 0, `${trouble} at n = ${n}`);
  }
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
for (const n of sizes) {
  if (n <= 100) benchTimes(n);
  if (n === 30) {
    benchCalm(n);
    benchStorm(n);
  }
  const idle = measureIdleBytes(n, n > 100 ? 2 : 5, 1);
  bytes.set(n, idle.perSecond);
  report.value('idle', n, 'bornemisza', 'bytes_per_s', 'B/s', idle.perSecond, {
    links: Math.round(idle.links * 10) / 10,
  });
}
const [small, large] = [bytes.get(30), bytes.get(500)];
if (small !== undefined) report.expect(small <= 4000, 'bytes at n = 30');
if (small !== undefined && large !== undefined)
  report.expect(large <= 2 * small, 'bytes at n = 500 against n = 30');
report.end();
