import { parseArgs } from 'node:util';
import {
  type Beds,
  crash,
  type Fault,
  hogged,
  idle,
  leave,
  type PerSubject,
  silent,
  startAll,
  storm,
  tag,
} from './cases.ts';
import { measureDeaths, measureIdleBytes } from '../sim/measure.ts';
import { ourFleet } from './ours.ts';
import { chosen, createReport, type Times } from './report.ts';
import { withSegment } from './segment.ts';
import { serfFleet } from './serf.ts';

/**
 * `bench:membership`: members as processes of their own, each in a network namespace, beside Debian's Serf in the same
 * namespaces in the same run. Needs root. `--cases` picks some, so that a run on a busy machine can be taken in pieces.
 * `--compare-sim` puts what the simulator says of as many nodes beside it.
 */
const CASES = ['idle', 'tag', 'crash', 'silent', 'leave', 'storm', 'hogged'] as const;

const { values } = parseArgs({
  options: {
    n: { type: 'string', default: '3,10' },
    samples: { type: 'string', default: '10' },
    cases: { type: 'string', default: CASES.join(',') },
    'warmup-seconds': { type: 'string', default: '120' },
    'idle-seconds': { type: 'string', default: '30' },
    'node-flags': { type: 'string', default: '' },
    'compare-sim': { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});
const samples = Number(values.samples);
const wanted = chosen(CASES, values.cases);
const report = createReport('membership', values.json);
const SUBJECTS = ['bornemisza', 'serf'] as const;

/** Limits for the times of each case, in ms. */
const LIMITS: Readonly<Record<string, { readonly p50: number; readonly p99?: number }>> = {
  crash: { p50: 500 },
  silent: { p50: 2000, p99: 3000 },
  join: { p50: 500 },
  leave: { p50: 1000 },
  tag: { p50: 500 },
};
const SILENT_RATIO = 2.5;
const HOGGED_SECONDS = 60;

/** Samples of the simulator cost next to nothing, so that the noise of the comparison is the real run's alone. */
const SIMULATED_SAMPLES = 400;
const AGREEMENT = 0.3;

function compare(what: string, n: number, real: number, simulated: number): void {
  const differs = simulated / real - 1;
  const percent = `${differs < 0 ? '' : '+'}${(100 * differs).toFixed(0)} %`;
  report.say(`  ${what} at n = ${n}: simulated ${percent} of real`);
  report.expect(
    Math.abs(differs) <= AGREEMENT,
    `the simulator at n = ${n}: ${what} ${percent} of real, at most 30 % either way`,
  );
}

function compareSilent(n: number, real: Times): void {
  const simulated = report.times(
    'silent',
    n,
    'simulator',
    'known_to_all',
    measureDeaths(n, SIMULATED_SAMPLES, 1, 'silent'),
  );
  compare('silent p50', n, real.p50, simulated.p50);
  compare('silent p99', n, real.p99, simulated.p99);
}

function compareBytes(n: number, real: number): void {
  const { perSecond } = measureIdleBytes(n, 5, 1);
  report.value('idle', n, 'simulator', 'bytes_per_s', 'B/s', perSecond);
  compare('idle bytes', n, real, perSecond);
}

function reportTimes(name: string, n: number, all: readonly PerSubject<number>[]): void {
  const [ours, serf] = SUBJECTS.map((subject) =>
    report.times(
      name,
      n,
      subject,
      'known_to_all',
      all.map((one) => one[subject]),
    ),
  );
  const limit = LIMITS[name];
  if (ours === undefined || serf === undefined || limit === undefined) return;
  report.expect(ours.p50 <= limit.p50, `${name} p50 at n = ${n}: ${ours.p50} ms, at most ${limit.p50}`);
  if (limit.p99 !== undefined)
    report.expect(ours.p99 <= limit.p99, `${name} p99 at n = ${n}: ${ours.p99} ms, at most ${limit.p99}`);
  if (name !== 'silent') return;
  if (values['compare-sim']) compareSilent(n, ours);
  const ratio = serf.p50 / ours.p50;
  report.expect(
    ratio >= SILENT_RATIO,
    `silent at n = ${n}: ${ratio.toFixed(1)} times faster than serf, at least ${SILENT_RATIO}`,
  );
}

async function repeat<T>(what: string, take: () => Promise<T>): Promise<T[]> {
  const all: T[] = [];
  for (let sample = 0; sample < samples; sample += 1) {
    all.push(await take());
    if ((sample + 1) % 10 === 0) report.say(`  ${what}: ${sample + 1} of ${samples}`);
  }
  return all;
}

async function measure(beds: Beds): Promise<void> {
  const n = beds.segment.hosts;
  const joins: PerSubject<number>[] = [];
  const faults = async (name: string, take: (beds: Beds) => Promise<Fault>): Promise<void> => {
    const all = await repeat(name, () => take(beds));
    joins.push(...all.map(({ joined }) => joined));
    reportTimes(
      name,
      n,
      all.map(({ known }) => known),
    );
  };
  if (wanted.has('idle')) await reportIdle(beds);
  if (wanted.has('tag')) reportTimes('tag', n, await repeat('tag', () => tag(beds)));
  if (wanted.has('storm')) await reportStorm(beds);
  if (wanted.has('hogged')) await reportHogged(beds);
  if (wanted.has('crash')) await faults('crash', crash);
  if (wanted.has('silent')) await faults('silent', silent);
  if (wanted.has('leave')) await faults('leave', leave);
  if (joins.length > 0) reportTimes('join', n, joins);
}

async function reportIdle(beds: Beds): Promise<void> {
  const n = beds.segment.hosts;
  const figures = await idle(beds, Number(values['warmup-seconds']), Number(values['idle-seconds']));
  for (const subject of SUBJECTS) {
    const { cpuPercent, rssMb, bytesPerSecond } = figures[subject];
    report.value('idle', n, subject, 'cpu_percent', '%', cpuPercent);
    report.value('idle', n, subject, 'rss_mb', 'MB', rssMb);
    report.value('idle', n, subject, 'bytes_per_s', 'B/s', bytesPerSecond);
  }
  const { cpuPercent, rssMb, bytesPerSecond } = figures.bornemisza;
  if (values['compare-sim']) compareBytes(n, bytesPerSecond);
  report.expect(cpuPercent <= 0.8, `CPU at n = ${n}: ${cpuPercent.toFixed(2)} % of a core, at most 0.8`);
  report.expect(rssMb <= 110, `RSS at n = ${n}: ${rssMb.toFixed(0)} MB, at most 110`);
  report.expect(bytesPerSecond <= 4000, `bytes at n = ${n}: ${bytesPerSecond.toFixed(0)} B/s, at most 4000`);
}

async function reportStorm(beds: Beds): Promise<void> {
  const n = beds.segment.hosts;
  for (const subject of SUBJECTS) {
    const { connectionsLost, falsePositives, convergedMs } = await storm(beds, subject);
    if (connectionsLost !== undefined)
      report.value('storm', n, subject, 'connections_lost', 'count', connectionsLost);
    report.value('storm', n, subject, 'false_positives', 'count', falsePositives);
    report.times('storm', n, subject, 'converged', [convergedMs]);
    if (subject === 'serf') continue;
    report.expect(connectionsLost === 0, `storm at n = ${n}: ${connectionsLost} connections lost`);
    report.expect(falsePositives === 0, `storm at n = ${n}: ${falsePositives} members held for dead`);
    report.expect(convergedMs <= 3000, `storm at n = ${n}: ${convergedMs.toFixed(0)} ms, at most 3000`);
  }
}

async function reportHogged(beds: Beds): Promise<void> {
  const n = beds.segment.hosts;
  const deaths = await hogged(beds, HOGGED_SECONDS);
  for (const subject of SUBJECTS)
    report.value('hogged', n, subject, 'false_positives', 'count', deaths[subject], {
      seconds: HOGGED_SECONDS,
    });
  report.expect(deaths.bornemisza === 0, `one core hogged at n = ${n}: ${deaths.bornemisza} held for dead`);
}

async function onBeds(n: number): Promise<void> {
  const flags = values['node-flags'].split(' ').filter((flag) => flag !== '');
  await withSegment(n, async (segment, directory, closers) => {
    const ours = await ourFleet(segment, directory, flags);
    closers.push(ours);
    const serf = await serfFleet(segment, directory);
    closers.push(serf);
    await startAll(ours, n);
    await startAll(serf, n);
    await measure({ segment, ours, serf });
  });
}

for (const n of values.n.split(',').map(Number)) await onBeds(n);
report.end();
