import { type Preset, presets } from '../../src/daemon/membership/preset.ts';
import type { PeerId } from '../../src/daemon/membership/types.ts';
import { type Cluster, createCluster, type Host } from './cluster.ts';
import { disagreement } from './invariants.ts';

/** Figures taken in virtual time; what test/bench/sim.ts prints and the tests hold to their limits. */
export function settled(nodes: number, seed: number, preset: Preset = presets.lan): Cluster {
  const cluster = createCluster({ nodes, seed, preset });
  for (let index = 0; index < nodes; index += 1)
    cluster.queue.at(index * 50, () => void cluster.start(cluster.host(index), { founder: index === 0 }));
  cluster.run(nodes * 50 + 20_000);
  settle(cluster);
  return cluster;
}

/** Runs until all agree; throws after ten minutes of virtual time. */
export function settle(cluster: Cluster): void {
  const deadlineMs = cluster.queue.nowMs + 600_000;
  for (;;) {
    const wrong = disagreement(cluster, () => false);
    if (wrong === undefined) return;
    if (cluster.queue.nowMs > deadlineMs) throw new Error(`no agreement: ${wrong}`);
    cluster.run(500);
  }
}

/** Time until the last of the others holds the host dead. */
function untilDeadByAll(cluster: Cluster, host: Host, fault: () => void): number {
  const startMs = cluster.queue.nowMs;
  const missing = new Set(cluster.running().filter((process) => process.host !== host));
  let lastMs = Number.NaN;
  cluster.watchers.push((process, _event, effects) => {
    for (const effect of effects)
      if (
        effect.kind === 'changed' &&
        effect.member.state === 'dead' &&
        effect.member.record.peerId === host.id
      )
        if (missing.delete(process) && missing.size === 0) lastMs = cluster.queue.nowMs - startMs;
  });
  fault();
  for (let waitedMs = 0; missing.size > 0 && waitedMs < 120_000; waitedMs += 200) cluster.run(200);
  cluster.watchers.pop();
  return lastMs;
}

export type Death = 'silent' | 'crash';

/** One death after another, each at a random moment of the probing rhythm, with a return in between. */
export function measureDeaths(
  nodes: number,
  samples: number,
  seed: number,
  how: Death,
  preset: Preset = presets.lan,
): number[] {
  const cluster = settled(nodes, seed, preset);
  const times: number[] = [];
  for (let sample = 0; sample < samples; sample += 1) {
    cluster.run(cluster.random.between(3000, 5000));
    const host = cluster.host(Math.floor(cluster.random.fraction() * nodes));
    times.push(
      untilDeadByAll(cluster, host, () => (how === 'crash' ? cluster.kill(host) : cluster.cut(host))),
    );
    cluster.kill(host);
    cluster.start(host);
    settle(cluster);
  }
  return times;
}

/** A changed tag, from the change to the last view that shows it. */
export function measureTags(nodes: number, samples: number, seed: number): number[] {
  const cluster = settled(nodes, seed);
  const times: number[] = [];
  for (let sample = 0; sample < samples; sample += 1) {
    cluster.run(cluster.random.between(2000, 4000));
    const host = cluster.host(Math.floor(cluster.random.fraction() * nodes));
    times.push(untilTagIsKnown(cluster, host, String(sample)));
  }
  return times;
}

function untilTagIsKnown(cluster: Cluster, host: Host, tag: string): number {
  const startMs = cluster.queue.nowMs;
  const missing = new Set(cluster.running());
  let lastMs = Number.NaN;
  cluster.watchers.push((process, _event, effects) => {
    for (const effect of effects)
      if (
        effect.kind === 'changed' &&
        effect.member.record.tags['sample'] === tag &&
        effect.member.record.peerId === host.id
      )
        if (missing.delete(process) && missing.size === 0) lastMs = cluster.queue.nowMs - startMs;
  });
  host.facts = { ...host.facts, tags: { sample: tag } };
  cluster.tell(host, { kind: 'local', facts: host.facts });
  for (let waitedMs = 0; missing.size > 0 && waitedMs < 60_000; waitedMs += 100) cluster.run(100);
  cluster.watchers.pop();
  return lastMs;
}

export const TROUBLES = ['loss10', 'pause1s'] as const;
/** A tenth of all segments lost; whole nodes stopped for a second, each every ten minutes on average. */
export type Trouble = (typeof TROUBLES)[number];

export interface FalseDeath {
  readonly atMs: number;
  readonly subject: string;
  readonly by: string;
  readonly why: string;
}

export interface Calm {
  /** One for each member and incarnation: who held it for dead first. */
  readonly falseDeaths: readonly FalseDeath[];
  readonly suspicions: number;
  readonly published: number;
  readonly events: number;
}

/** Nobody dies here; who says otherwise is noted. */
export function measureCalm(nodes: number, hours: number, seed: number, trouble: Trouble): Calm {
  const cluster = settled(nodes, seed);
  const deaths = new Map<string, FalseDeath>();
  let suspicions = 0;
  let events = 0;
  const publishedBefore = cluster.published;
  cluster.watchers.push((process, _event, effects) => {
    events += 1;
    for (const effect of effects) {
      if (effect.kind !== 'changed') continue;
      const { state, record } = effect.member;
      if (state === 'suspect') suspicions += 1;
      const key = `${record.peerId} ${record.incarnation}`;
      if (state === 'dead' && !deaths.has(key))
        deaths.set(key, {
          atMs: cluster.queue.nowMs,
          subject: record.name,
          by: process.host.name,
          why: effect.why,
        });
    }
  });
  if (trouble === 'loss10') cluster.network.faults.loss = 0.1;
  else for (const host of cluster.hosts) pauseNowAndThen(cluster, host);
  cluster.run(hours * 3_600_000);
  return {
    falseDeaths: [...deaths.values()],
    suspicions,
    published: cluster.published - publishedBefore,
    events,
  };
}

const PAUSE_MEAN_MS = 600_000;

/** Stops of one second; the time from the end of one to the next is exponential with a mean of ten minutes. */
function pauseNowAndThen(cluster: Cluster, host: Host): void {
  cluster.queue.after(-Math.log(1 - cluster.random.fraction()) * PAUSE_MEAN_MS, () => {
    cluster.pause(host, 1000);
    cluster.queue.after(1000, () => pauseNowAndThen(cluster, host));
  });
}

export interface Bytes {
  readonly perSecond: number;
  readonly links: number;
}

/** Bytes sent per second and node, over `minutes` of idleness. libp2p says nothing of its own on an idle link. */
export function measureIdleBytes(nodes: number, minutes: number, seed: number): Bytes {
  const cluster = settled(nodes, seed);
  cluster.run(60_000);
  const before = cluster.network.bytesSent;
  cluster.run(minutes * 60_000);
  const perSecond = (cluster.network.bytesSent - before) / nodes / (minutes * 60);
  const links = cluster.running().reduce((count, process) => count + process.connections.size, 0) / nodes;
  return { perSecond, links };
}

export interface Storm {
  readonly convergedMs: number;
  readonly deaths: number;
  readonly lostLinks: number;
  readonly mostPublishedPerSecond: number;
  readonly published: number;
}

/** 200 changes in ten seconds, spread over the nodes. */
export function measureStorm(nodes: number, seed: number, changes = 200, overMs = 10_000): Storm {
  const cluster = settled(nodes, seed);
  let deaths = 0;
  let lostLinks = 0;
  const publishedMs: number[] = [];
  cluster.watchers.push((_process, event, effects) => {
    // A link that was given back on purpose is not dialled again.
    if (event.kind === 'disconnected' && effects.some((effect) => effect.kind === 'connect')) lostLinks += 1;
    for (const effect of effects) {
      if (effect.kind === 'changed' && effect.member.state === 'dead') deaths += 1;
      if (effect.kind === 'publish') publishedMs.push(cluster.queue.nowMs);
    }
  });
  const facts = new Map<PeerId, number>();
  for (let change = 0; change < changes; change += 1)
    cluster.queue.after((change / changes) * overMs, () => {
      const host = cluster.host(Math.floor(cluster.random.fraction() * nodes));
      facts.set(host.id, change);
      host.facts = { ...host.facts, tags: { change: String(change) } };
      cluster.tell(host, { kind: 'local', facts: host.facts });
    });
  cluster.run(overMs);
  const lastMs = cluster.queue.nowMs;
  while (!allKnow(cluster, facts) && cluster.queue.nowMs - lastMs < 60_000) cluster.run(50);
  const most = publishedMs.map(
    (at) => publishedMs.filter((other) => other <= at && at - other < 1000).length,
  );
  return {
    convergedMs: cluster.queue.nowMs - lastMs,
    deaths,
    lostLinks,
    mostPublishedPerSecond: Math.max(0, ...most),
    published: publishedMs.length,
  };
}

function allKnow(cluster: Cluster, facts: ReadonlyMap<PeerId, number>): boolean {
  return cluster.running().every((process) =>
    process.membership.view.members.every((member) => {
      const change = facts.get(member.record.peerId);
      return change === undefined || member.record.tags['change'] === String(change);
    }),
  );
}
