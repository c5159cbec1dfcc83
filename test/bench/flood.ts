import type { ChildProcess } from 'node:child_process';
import { constants, setPriority } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { inNamespace, ip } from '../lab/namespace.ts';
import { poll } from '../lab/process.ts';
import { spawnWithUs } from '../support/with-us.ts';
import { cpuMs } from './agents.ts';
import { startAll } from './cases.ts';
import { ATTACKS, type Attack } from './member-words.ts';
import { ourFleet, type OurFleet } from './ours.ts';
import { chosen, createReport, percentile } from './report.ts';
import { type Segment, withSegment } from './segment.ts';

/**
 * `bench:flood`: what one member that was taken over costs the others at its full rate, and whether they find a silent
 * host as soon as before; and how long a member needs to link with one that thousands of sockets of strangers hold
 * busy. Members are processes in network namespaces as in bench:membership. Needs root.
 */
const CASES = ['flood', 'strangers'] as const;
const { values } = parseArgs({
  options: {
    n: { type: 'string', default: '10' },
    samples: { type: 'string', default: '8' },
    seconds: { type: 'string', default: '15' },
    attacks: { type: 'string', default: ATTACKS.join(',') },
    sockets: { type: 'string', default: '2500' },
    cases: { type: 'string', default: CASES.join(',') },
    json: { type: 'boolean', default: false },
  },
});
const samples = Number(values.samples);
const seconds = Number(values.seconds);
const attacks = chosen(ATTACKS, values.attacks);
const wanted = chosen(CASES, values.cases);
const report = createReport('flood', values.json);

const CPU_LIMIT_PERCENT = 10;
const SILENT_RATIO_LIMIT = 1.2;
const LINK_LIMIT_MS = 2000;
const PATIENCE_MS = 60_000;
const PORT = 4101;

interface Bed {
  readonly segment: Segment;
  readonly ours: OurFleet;
  /** The last host; it takes no part in what is measured. */
  readonly attacker: number;
  readonly honest: readonly number[];
}

function knows(bed: Bed, observer: number, about: number, state: string): boolean {
  return bed.ours.agents.get(observer)?.knows.get(about)?.state === state;
}

/** The honest hold each other for alive, whatever they make of the attacker. */
async function settled(bed: Bed): Promise<void> {
  const all = (): boolean =>
    bed.honest.every((one) => bed.honest.every((other) => one === other || knows(bed, one, other, 'alive')));
  await poll('the honest members to see each other', () => all() || undefined, { timeoutMs: PATIENCE_MS });
}

/** CPU time of an honest member, mean and most, percent of a core. */
async function cpuPercent(bed: Bed): Promise<{ mean: number; most: number }> {
  const pids = bed.honest.map((host) => bed.ours.agents.get(host)?.pid ?? 0);
  const before = await Promise.all(pids.map(cpuMs));
  const sinceMs = performance.now();
  await pause(seconds * 1000);
  const after = await Promise.all(pids.map(cpuMs));
  const elapsedMs = performance.now() - sinceMs;
  const shares = after.map((ms, at) => (100 * (ms - (before[at] ?? 0))) / elapsedMs);
  return { mean: shares.reduce((sum, share) => sum + share, 0) / shares.length, most: Math.max(...shares) };
}

/** One honest host's cable is out. @returns ms until the last of the other honest ones holds it for dead */
async function silence(bed: Bed): Promise<number> {
  await pause(1000 + Math.random() * 2000);
  const { ours, segment, honest } = bed;
  const host = honest[Math.floor(Math.random() * honest.length)] ?? 0;
  const others = honest.filter((other) => other !== host);
  expected.add(host);
  const sinceMs = performance.now();
  await segment.cut(host);
  const all = (): boolean => others.every((other) => knows(bed, other, host, 'dead'));
  while (!all() && performance.now() - sinceMs < PATIENCE_MS) await pause(5);
  // Not found in all that time counts as all that time, so that the run goes on to its end.
  const known = all()
    ? Math.max(...others.map((other) => ours.agents.get(other)?.knows.get(host)?.atMs ?? Number.NaN))
    : sinceMs + PATIENCE_MS;
  await ours.kill(host);
  await segment.restore(host);
  await ours.start(host);
  await settled(bed);
  expected.delete(host);
  return known - sinceMs;
}

/** Hosts that are cut just now: to hold them for dead is no mistake. */
const expected = new Set<number>();

async function silences(bed: Bed): Promise<number[]> {
  const all: number[] = [];
  for (let sample = 0; sample < samples; sample += 1) all.push(await silence(bed));
  return all;
}

/** @returns what ends the watch and says how many honest hosts an honest one held for dead that was not cut */
function watchMistakes(bed: Bed): () => number {
  const mistaken = new Set<number>();
  const honest = new Set(bed.honest);
  const watch = (observer: number, about: number, { state }: { state: string }): void => {
    if (state === 'dead' && honest.has(observer) && honest.has(about) && !expected.has(about))
      mistaken.add(about);
  };
  bed.ours.watchers.add(watch);
  return () => {
    bed.ours.watchers.delete(watch);
    return mistaken.size;
  };
}

async function flood(bed: Bed, attack: Attack): Promise<void> {
  const n = bed.segment.hosts;
  const calm = await silences(bed);
  const mistakes = watchMistakes(bed);
  bed.ours.say(bed.attacker, { kind: 'flood', attack });
  // The share that everybody has in advance is used up first.
  const first = await cpuPercent(bed);
  const steady = await cpuPercent(bed);
  const during = await silences(bed);
  const falsely = mistakes();
  bed.ours.say(bed.attacker, { kind: 'calm' });
  const more = { attack };
  report.value('flood', n, 'bornemisza', 'cpu_percent', '%', steady.mean, {
    ...more,
    most: Math.round(steady.most * 10) / 10,
    first: Math.round(first.mean * 10) / 10,
  });
  const ratio = percentile(during, 0.5) / percentile(calm, 0.5);
  const p50 = (all: readonly number[]): number => Math.round(percentile(all, 0.5));
  report.value('flood', n, 'bornemisza', 'silent_ratio', 'ratio', ratio, {
    ...more,
    calm_p50: p50(calm),
    flood_p50: p50(during),
    samples,
  });
  report.value('flood', n, 'bornemisza', 'false_positives', 'count', falsely, more);
  report.expect(
    steady.mean <= CPU_LIMIT_PERCENT,
    `${attack}: ${steady.mean.toFixed(1)} % of a core, at most ${CPU_LIMIT_PERCENT}`,
  );
  report.expect(
    ratio <= SILENT_RATIO_LIMIT,
    `${attack}: silent p50 ${ratio.toFixed(2)} times calm, at most ${SILENT_RATIO_LIMIT}`,
  );
  report.expect(falsely === 0, `${attack}: ${falsely} held for dead`);
  await settled(bed);
}

/** Starts the strangers; resolves when their sockets are there. */
async function strangersAt(bed: Bed, victim: number): Promise<ChildProcess> {
  const { segment } = bed;
  const from = '10.90.200.1';
  const namespace = segment.namespaceOf(bed.attacker);
  await ip(namespace, [`addr add ${from}/16 dev ours`]);
  const program = join(import.meta.dirname, 'stranger.ts');
  const target = [from, segment.addressOf(victim, 'ours'), String(PORT), values.sockets];
  const [command, ...args] = inNamespace(namespace, [process.execPath, program, ...target]);
  const child = spawnWithUs(command ?? '', args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let opened = 0;
  createInterface({ input: child.stdout }).on('line', (line) => {
    opened = (JSON.parse(line) as { opened: number }).opened;
  });
  await poll('the strangers to come', () => opened > Number(values.sockets) || undefined, {
    timeoutMs: PATIENCE_MS,
  });
  return child;
}

/**
 * A member comes back while strangers hold one of the others busy. @returns ms from its beginning to the link with that
 * one
 */
async function linkMs(bed: Bed, victim: number): Promise<number> {
  const { ours, honest } = bed;
  const host = honest.find((other) => other !== victim) ?? 0;
  await ours.kill(host);
  let linkedMs: number | undefined;
  const hear = (one: number, other: number, atMs: number): void => {
    if (one === host && other === victim) linkedMs ??= atMs;
  };
  ours.linked.add(hear);
  try {
    await ours.start(host);
    const atMs = await poll(`host ${host} to link with ${victim}`, () => linkedMs, {
      everyMs: 2,
      timeoutMs: PATIENCE_MS,
    });
    return atMs - (ours.agents.get(host)?.joiningMs ?? Number.NaN);
  } finally {
    ours.linked.delete(hear);
  }
}

async function strangers(bed: Bed): Promise<void> {
  const n = bed.segment.hosts;
  const victim = 0;
  const calm: number[] = [];
  for (let sample = 0; sample < samples; sample += 1) calm.push(await linkMs(bed, victim));
  report.times('calm', n, 'bornemisza', 'link', calm);
  const child = await strangersAt(bed, victim);
  const all: number[] = [];
  for (let sample = 0; sample < samples; sample += 1) all.push(await linkMs(bed, victim));
  const { mean } = await cpuPercent({ ...bed, honest: [victim] });
  child.kill('SIGKILL');
  report.times('strangers', n, 'bornemisza', 'link', all);
  report.value('strangers', n, 'bornemisza', 'cpu_percent', '%', mean, { sockets: Number(values.sockets) });
  const most = Math.max(...all);
  report.expect(
    most <= LINK_LIMIT_MS,
    `strangers: a link took ${most.toFixed(0)} ms, at most ${LINK_LIMIT_MS}`,
  );
}

for (const n of values.n.split(',').map(Number))
  await withSegment(n, async (segment, directory, closers) => {
    const ours = await ourFleet(segment, directory);
    closers.push(ours);
    await startAll(ours, n);
    const hosts = Array.from({ length: n }, (_, host) => host);
    const bed: Bed = { segment, ours, attacker: n - 1, honest: hosts.slice(0, -1) };
    // It has a machine of its own: here it takes only the CPU time that the members leave.
    setPriority(ours.agents.get(bed.attacker)?.pid ?? 0, constants.priority.PRIORITY_LOW);
    if (wanted.has('strangers')) await strangers(bed);
    await settled(bed);
    if (wanted.has('flood')) for (const attack of attacks) await flood(bed, attack);
  });
report.end();
