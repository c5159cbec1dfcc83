import { setTimeout as pause } from 'node:timers/promises';
import { poll } from '../lab/process.ts';
import { spawnWithUs } from '../support/with-us.ts';
import { cpuMs, type Fleet, type Known, rssMb, type State } from './agents.ts';
import type { OurFleet } from './ours.ts';
import type { Segment } from './segment.ts';
import type { SerfFleet } from './serf.ts';

/** The same fault for both subjects at the same moment; what the members then say is timed for each by itself. */
export interface Beds {
  readonly segment: Segment;
  readonly ours: OurFleet;
  readonly serf: SerfFleet;
}

export type PerSubject<T> = Readonly<Record<Fleet['subject'], T>>;
/** Serf at 30 hosts takes up to 20 s to declare one dead. */
const PATIENCE_MS = 120_000;

const GONE: ReadonlySet<State> = new Set(['leaving', 'left']);

export async function startAll(fleet: Fleet, hosts: number): Promise<void> {
  for (let host = 0; host < hosts; host += 1) await fleet.start(host);
  await settled(fleet);
}

/** Every member holds every other for alive. */
export async function settled(fleet: Fleet): Promise<void> {
  const hosts = [...fleet.agents.keys()];
  const knowsAll = (observer: number): boolean =>
    hosts.every(
      (host) => host === observer || fleet.agents.get(observer)?.knows.get(host)?.state === 'alive',
    );
  await poll(`all ${fleet.subject} members to see each other`, () => hosts.every(knowsAll) || undefined, {
    timeoutMs: PATIENCE_MS,
  });
}

/** @returns when the last of the others knew it */
async function knownToAll(
  fleet: Fleet,
  about: number,
  what: string,
  is: (known: Known) => boolean,
): Promise<number> {
  const others = [...fleet.agents].filter(([host]) => host !== about).map(([, agent]) => agent);
  const missing = (): number =>
    others.filter((agent) => {
      const known = agent.knows.get(about);
      return known === undefined || !is(known);
    }).length;
  await poll(
    () =>
      `all ${fleet.subject} members to know of host ${about}: ${what}; ${missing()} of ${others.length} do not`,
    () => missing() === 0 || undefined,
    { everyMs: 5, timeoutMs: PATIENCE_MS },
  );
  return Math.max(...others.map((agent) => agent.knows.get(about)?.atMs ?? Number.NaN));
}

async function both<T>(beds: Beds, of: (fleet: Fleet) => Promise<T>): Promise<PerSubject<T>> {
  const [bornemisza, serf] = await Promise.all([of(beds.ours), of(beds.serf)]);
  return { bornemisza, serf };
}

function someHost(beds: Beds): number {
  return Math.floor(Math.random() * beds.segment.hosts);
}

/** A random moment of both probing rhythms, after what went before has calmed down. */
async function calm(): Promise<void> {
  await pause(2000 + Math.random() * 2000);
}

export interface Fault {
  readonly known: PerSubject<number>;
  /** Of the return that follows. */
  readonly joined: PerSubject<number>;
}

export async function crash(beds: Beds): Promise<Fault> {
  await calm();
  const host = someHost(beds);
  const sinceMs = performance.now();
  await Promise.all([beds.ours.kill(host), beds.serf.kill(host)]);
  const known = await both(beds, async (fleet) => (await dead(fleet, host)) - sinceMs);
  return { known, joined: await comeBack(beds, host) };
}

export async function silent(beds: Beds): Promise<Fault> {
  await calm();
  const host = someHost(beds);
  const sinceMs = performance.now();
  await beds.segment.cut(host);
  const known = await both(beds, async (fleet) => (await dead(fleet, host)) - sinceMs);
  await Promise.all([beds.ours.kill(host), beds.serf.kill(host)]);
  await beds.segment.restore(host);
  return { known, joined: await comeBack(beds, host) };
}

export async function leave(beds: Beds): Promise<Fault> {
  await calm();
  const host = someHost(beds);
  const known = await both(beds, async (fleet) => {
    const gone = knownToAll(fleet, host, 'it leaves', ({ state }) => GONE.has(state));
    const sinceMs = await fleet.leave(host);
    return (await gone) - sinceMs;
  });
  return { known, joined: await comeBack(beds, host) };
}

function dead(fleet: Fleet, host: number): Promise<number> {
  return knownToAll(fleet, host, 'it is dead', ({ state }) => state === 'dead');
}

/** From the member's own word that it begins to join, so that the start of a process is not part of it. */
async function comeBack(beds: Beds, host: number): Promise<PerSubject<number>> {
  const joined = await both(beds, async (fleet) => {
    await fleet.start(host);
    const knownMs = await knownToAll(fleet, host, 'it is back', ({ state }) => state === 'alive');
    return knownMs - (fleet.agents.get(host)?.joiningMs ?? Number.NaN);
  });
  await both(beds, settled);
  return joined;
}

let tags = 0;

/** From the moment in which the member's own view shows the tag, so that the way of the command is not part of it. */
export async function tag(beds: Beds): Promise<PerSubject<number>> {
  await calm();
  const host = someHost(beds);
  tags += 1;
  const value = String(tags);
  return both(beds, async (fleet) => {
    fleet.tag(host, value);
    const knownMs = await knownToAll(fleet, host, `tag ${value}`, (known) => known.tag === value);
    const own = await poll(`host ${host} to show its own tag`, () => {
      const known = fleet.agents.get(host)?.knows.get(host);
      return known?.tag === value ? known.atMs : undefined;
    });
    return knownMs - own;
  });
}

export interface Idle {
  readonly cpuPercent: number;
  readonly rssMb: number;
  readonly bytesPerSecond: number;
}

/**
 * Means over all members. A process that does little takes minutes until its code is compiled, and then runs for
 * months: what it costs at first is not what it costs.
 */
export async function idle(beds: Beds, warmupSeconds: number, seconds: number): Promise<PerSubject<Idle>> {
  await pause(warmupSeconds * 1000);
  return both(beds, async (fleet) => {
    const wire = fleet.subject === 'serf' ? 'serf' : 'ours';
    const pids = [...fleet.agents.values()].map(({ pid }) => pid);
    const sums = async (): Promise<[number, number, number]> => [
      performance.now(),
      await sumOf(pids, cpuMs),
      await sumOf(fleet.agents.keys(), (host) => beds.segment.bytesSent(host, wire)),
    ];
    const [beforeMs, cpuBefore, bytesBefore] = await sums();
    await pause(seconds * 1000);
    const [afterMs, cpuAfter, bytesAfter] = await sums();
    const elapsedMs = (afterMs - beforeMs) * pids.length;
    return {
      cpuPercent: (100 * (cpuAfter - cpuBefore)) / elapsedMs,
      rssMb: (await sumOf(pids, rssMb)) / pids.length,
      bytesPerSecond: (1000 * (bytesAfter - bytesBefore)) / elapsedMs,
    };
  });
}

async function sumOf<T>(of: Iterable<T>, measure: (one: T) => Promise<number>): Promise<number> {
  let sum = 0;
  for (const one of of) sum += await measure(one);
  return sum;
}

export interface Storm {
  readonly convergedMs: number;
  /** Members that anybody held for dead meanwhile. */
  readonly falsePositives: number;
  /** Serf has no connections. */
  readonly connectionsLost: number | undefined;
}

const STORM_CHANGES = 200;
const STORM_MS = 10_000;

/** 200 changes of tags in ten seconds, on hosts at random; converged when all hold the last of each. */
export async function storm(beds: Beds, subject: Fleet['subject']): Promise<Storm> {
  await calm();
  const { ours, serf } = beds;
  const fleet = subject === 'serf' ? serf : ours;
  const lostBefore = subject === 'serf' ? 0 : await linksLost(ours);
  const falsely = watchDeaths(fleet);
  const wanted = new Map<number, string>();
  const startMs = performance.now();
  for (let change = 0; change < STORM_CHANGES; change += 1) {
    await pause(Math.max(0, startMs + (change * STORM_MS) / STORM_CHANGES - performance.now()));
    const host = someHost(beds);
    tags += 1;
    wanted.set(host, String(tags));
    fleet.tag(host, String(tags));
  }
  const lastMs = performance.now();
  const seenBy = async (observer: number): Promise<Map<number, string | undefined>> =>
    subject === 'serf' ? serf.tagsSeenBy(observer) : tagsOf(ours, observer);
  for (const observer of fleet.agents.keys())
    await poll(
      `host ${observer} to know all tags`,
      async () => {
        const seen = await seenBy(observer);
        return [...wanted].every(([host, value]) => seen.get(host) === value) || undefined;
      },
      { everyMs: 10, timeoutMs: PATIENCE_MS },
    );
  return {
    convergedMs: performance.now() - lastMs,
    falsePositives: falsely().size,
    connectionsLost: subject === 'serf' ? undefined : (await linksLost(ours)) - lostBefore,
  };
}

function tagsOf(ours: OurFleet, observer: number): Map<number, string | undefined> {
  const knows = ours.agents.get(observer)?.knows ?? new Map<number, Known>();
  return new Map([...knows].map(([host, { tag: value }]) => [host, value]));
}

async function linksLost(ours: OurFleet): Promise<number> {
  return sumOf(ours.agents.keys(), async (host) => (await ours.figures(host)).linksLost);
}

/** @returns what ends the watch and tells whom anybody held for dead */
export function watchDeaths(fleet: Fleet): () => ReadonlySet<number> {
  const falsely = new Set<number>();
  const watch = (_observer: number, about: number, { state }: Known): void => {
    if (state === 'dead') falsely.add(about);
  };
  fleet.watchers.add(watch);
  return () => {
    fleet.watchers.delete(watch);
    return falsely;
  };
}

/** One core of the machine belongs to a busy loop. @returns how many members anybody held for dead meanwhile */
export async function hogged(beds: Beds, seconds: number): Promise<PerSubject<number>> {
  await calm();
  const watches = { bornemisza: watchDeaths(beds.ours), serf: watchDeaths(beds.serf) };
  const hog = spawnWithUs('taskset', ['-c', '0', 'sh', '-c', 'while :; do :; done'], { stdio: 'ignore' });
  await pause(seconds * 1000);
  const hogged = hog.exitCode === null;
  hog.kill('SIGKILL');
  if (!hogged) throw new Error('the busy loop ended by itself');
  return { bornemisza: watches.bornemisza().size, serf: watches.serf().size };
}
