import type { Rule } from '../../src/daemon/membership/core.ts';
import { type Preset, presets } from '../../src/daemon/membership/preset.ts';
import { createSeeded, type Seeded } from '../../src/daemon/membership/seeded.ts';
import type { Evidence, PeerId } from '../../src/daemon/membership/types.ts';
import { type Cluster, createCluster, type Host } from './cluster.ts';
import { disagreement, type Excuses, type Violation, watchInvariants } from './invariants.ts';

/** One fault or change, at a time after all have started. Hosts are indices; durations and times in ms. */
export type Action =
  | {
      readonly atMs: number;
      readonly kind: 'crash';
      readonly host: number;
      readonly forMs: number;
      readonly forget: boolean;
    }
  | { readonly atMs: number; readonly kind: 'restart'; readonly host: number; readonly forMs: number }
  | { readonly atMs: number; readonly kind: 'cut'; readonly host: number; readonly forMs: number }
  | {
      readonly atMs: number;
      readonly kind: 'partition';
      readonly hosts: readonly number[];
      readonly oneWay: boolean;
      readonly forMs: number;
    }
  | { readonly atMs: number; readonly kind: 'loss'; readonly share: number; readonly forMs: number }
  /** Each segment is late by up to so much, beside its ordinary way. */
  | { readonly atMs: number; readonly kind: 'jitter'; readonly byMs: number; readonly forMs: number }
  | { readonly atMs: number; readonly kind: 'pause'; readonly host: number; readonly forMs: number }
  | {
      readonly atMs: number;
      readonly kind: 'slow';
      readonly host: number;
      readonly byMs: number;
      readonly forMs: number;
    }
  | {
      readonly atMs: number;
      readonly kind: 'starve';
      readonly host: number;
      /** Again and again: runs so long, then stands still so long. */
      readonly runMs: number;
      readonly stopMs: number;
      readonly forMs: number;
    }
  | { readonly atMs: number; readonly kind: 'leave'; readonly host: number }
  | { readonly atMs: number; readonly kind: 'change'; readonly host: number }
  | {
      readonly atMs: number;
      readonly kind: 'slander';
      readonly host: number;
      readonly subject: number;
      /** What it claims to have seen. Default: closed. */
      readonly evidence?: Evidence;
    }
  | { readonly atMs: number; readonly kind: 'outage'; readonly forMs: number }
  /** The time of day jumps; a start that follows takes its incarnation from it. */
  | { readonly atMs: number; readonly kind: 'clockJump'; readonly host: number; readonly byMs: number }
  | { readonly atMs: number; readonly kind: 'clone'; readonly host: number; readonly forMs: number };

export interface Scenario {
  readonly seed: number;
  readonly nodes: number;
  /** Rate of each host's clock. */
  readonly drifts: readonly number[];
  readonly actions: readonly Action[];
}

export interface Outcome {
  readonly violations: readonly Violation[];
  readonly events: number;
  /** Last lines of what the processes noticed, for a failing run. */
  readonly log: readonly string[];
}

export interface RunOptions {
  readonly preset?: Preset;
  readonly withoutRules?: readonly Rule[];
}

const LENGTH_MS = 120_000;
/** After the last fault: backed-off redials (90 s at most), a sync, a suspicion. */
const HEALING_MS = 240_000;
/** TCP's backlog and the refutations after a fault. */
const GRACE_MS = 25_000;

/** Everything about a scenario follows from its seed. */
export function makeScenario(seed: number): Scenario {
  const random = createSeeded(seed);
  const nodes =
    random.fraction() < 0.1 ? 13 + Math.floor(random.fraction() * 18) : 2 + Math.floor(random.fraction() * 9);
  const drifts = Array.from({ length: nodes }, () => 1 + random.between(-0.01, 0.01));
  const count = 1 + Math.floor(random.fraction() * 10);
  const calm = random.fraction() < 0.4;
  const actions = Array.from({ length: count }, () => makeAction(random, nodes, calm));
  actions.push(...rareActions(seed, nodes, calm));
  actions.sort((one, other) => one.atMs - other.atMs);
  return { seed, nodes, drifts, actions };
}

/** With a generator of their own, so that a seed keeps the rest of its scenario when something is added here. */
function rareActions(seed: number, nodes: number, calm: boolean): Action[] {
  const random = createSeeded(seed ^ 0x5eed);
  const actions: Action[] = [];
  const host = (): number => Math.floor(random.fraction() * nodes);
  const atMs = (): number => Math.floor(random.fraction() * LENGTH_MS);
  if (random.fraction() < 0.3) {
    const byMs = random.pick([-3_600_000, 3_600_000]) ?? 0;
    const jumped = host();
    const jumpMs = atMs();
    actions.push({ atMs: jumpMs, kind: 'clockJump', host: jumped, byMs });
    // Alone it says nothing: the time of day is read at a start.
    if (!calm)
      actions.push({
        atMs: jumpMs + 1,
        kind: 'crash',
        host: jumped,
        forMs: Math.floor(random.between(100, 5000)),
        forget: random.fraction() < 0.5,
      });
  }
  if (!calm && random.fraction() < 0.2)
    actions.push({
      atMs: atMs(),
      kind: 'clone',
      host: host(),
      forMs: Math.floor(random.between(5000, 30_000)),
    });
  return actions;
}

/** Calm scenarios hold only what must kill nobody; one kind of trouble at a time where two together may. */
function makeAction(random: Seeded, nodes: number, calm: boolean): Action {
  const atMs = Math.floor(random.fraction() * LENGTH_MS);
  const host = Math.floor(random.fraction() * nodes);
  const subject = (host + 1 + Math.floor(random.fraction() * (nodes - 1))) % nodes;
  const forMs = Math.floor(random.between(100, 30_000));
  const kinds = calm
    ? (['restart', 'pause', 'starve', 'slow', 'change', 'slander', 'leave'] as const)
    : ([
        'crash',
        'restart',
        'cut',
        'partition',
        'loss',
        'pause',
        'starve',
        'slow',
        'leave',
        'change',
        'slander',
        'outage',
      ] as const);
  const kind = random.pick<Action['kind']>(kinds) ?? 'change';
  switch (kind) {
    case 'crash':
      return { atMs, kind, host, forMs, forget: random.fraction() < 0.3 };
    case 'restart':
      return { atMs, kind, host, forMs: calm ? Math.min(forMs, 6000) : forMs };
    case 'cut':
      return { atMs, kind, host, forMs };
    case 'partition': {
      const hosts = random.sample(
        Array.from({ length: nodes }, (_, index) => index),
        Math.ceil(nodes / 2),
      );
      return { atMs, kind, hosts, oneWay: random.fraction() < 0.4, forMs };
    }
    case 'loss':
      return { atMs, kind, share: random.pick([0.05, 0.1, 0.3]) ?? 0.1, forMs };
    case 'pause':
      return {
        atMs,
        kind,
        host,
        forMs: calm ? Math.floor(random.between(100, 1000)) : Math.floor(random.between(100, 8000)),
      };
    case 'slow':
      return { atMs, kind, host, byMs: calm ? random.between(1, 10) : random.between(1, 60), forMs };
    case 'starve':
      return { atMs, kind, host, runMs: random.between(40, 150), stopMs: random.between(100, 700), forMs };
    case 'leave':
      return { atMs, kind, host };
    case 'change':
      return { atMs, kind, host };
    case 'slander':
      return { atMs, kind, host, subject };
    case 'outage':
      return { atMs, kind, forMs };
    case 'clockJump':
    case 'clone':
    case 'jitter':
      throw new TypeError(`${kind} has a generator of its own`);
  }
}

export function runScenario(scenario: Scenario, options: RunOptions = {}): Outcome {
  const run = new Run(scenario, options);
  return run.outcome();
}

/** Carries out a scenario and keeps the books on who is excused. */
class Run implements Excuses {
  readonly #scenario: Scenario;
  readonly #cluster: Cluster;
  readonly #violations: Violation[];
  readonly #log: string[] = [];
  #events = 0;
  readonly #excusedUntilMs = new Map<PeerId, number>();
  readonly #pausedUntilMs = new Map<PeerId, number>();
  readonly #starvedBy = new Map<PeerId, Action | undefined>();
  readonly #left = new Set<PeerId>();
  readonly #restartedMs = new Map<PeerId, number>();
  #lossUntilMs = 0;

  constructor(scenario: Scenario, options: RunOptions) {
    this.#scenario = scenario;
    this.#cluster = createCluster({
      nodes: scenario.nodes,
      seed: scenario.seed,
      preset: options.preset ?? presets.lan,
      withoutRules: options.withoutRules ?? [],
    });
    this.#violations = watchInvariants(this.#cluster, this);
    this.#keepLog();
  }

  isExcused(host: PeerId): boolean {
    return (this.#excusedUntilMs.get(host) ?? 0) > this.#cluster.queue.nowMs;
  }

  wasPaused(host: PeerId): boolean {
    const untilMs = this.#pausedUntilMs.get(host) ?? Number.NEGATIVE_INFINITY;
    const sinceMs = this.#cluster.queue.nowMs - untilMs;
    return sinceMs >= -1 && sinceMs < 400;
  }

  isStill(host: Host): boolean {
    return (this.#pausedUntilMs.get(host.id) ?? 0) > this.#cluster.queue.nowMs;
  }

  outcome(): Outcome {
    const { nodes, drifts, actions } = this.#scenario;
    const cluster = this.#cluster;
    for (let index = 0; index < nodes; index += 1) {
      const host = cluster.host(index);
      host.drift = drifts[index] ?? 1;
      cluster.queue.at(index * 40, () => void cluster.start(host, { founder: index === 0 }));
    }
    const startMs = nodes * 40 + 20_000;
    for (const host of cluster.hosts) this.#excuse(host.id, startMs);
    for (const action of actions) cluster.queue.at(startMs + action.atMs, () => this.#act(action));
    cluster.run(startMs + LENGTH_MS + 31_000);
    this.#heal();
    this.#converge();
    return { violations: this.#violations, events: this.#events, log: this.#log };
  }

  /** All faults are over; whoever should run runs. */
  #heal(): void {
    const cluster = this.#cluster;
    cluster.blocks.clear();
    cluster.network.faults.loss = 0;
    for (const host of cluster.hosts) {
      cluster.restore(host);
      cluster.killClone(host);
      if (host.process !== undefined) host.process.slowMs = 0;
      if (!this.#left.has(host.id)) cluster.start(host);
      this.#excuse(host.id, GRACE_MS);
    }
  }

  #converge(): void {
    const cluster = this.#cluster;
    const deadlineMs = cluster.queue.nowMs + HEALING_MS;
    let wrong = disagreement(cluster, (host) => this.#left.has(host));
    while (wrong !== undefined && cluster.queue.nowMs < deadlineMs) {
      cluster.run(1000);
      wrong = disagreement(cluster, (host) => this.#left.has(host));
    }
    if (wrong !== undefined)
      this.#violations.push({ invariant: 'views-agree', atMs: cluster.queue.nowMs, detail: wrong });
  }

  #excuse(host: PeerId, forMs: number): void {
    const untilMs = this.#cluster.queue.nowMs + forMs;
    this.#excusedUntilMs.set(host, Math.max(untilMs, this.#excusedUntilMs.get(host) ?? 0));
  }

  #excuseAll(forMs: number): void {
    for (const host of this.#cluster.hosts) this.#excuse(host.id, forMs + GRACE_MS);
  }

  #act(action: Action): void {
    const cluster = this.#cluster;
    this.#note(JSON.stringify(action));
    switch (action.kind) {
      case 'crash': {
        const host = cluster.host(action.host);
        this.#excuse(host.id, action.forMs + GRACE_MS);
        return this.#stopFor(host, action.forMs, action.forget);
      }
      case 'restart':
        return this.#restart(cluster.host(action.host), action.forMs);
      case 'cut': {
        const host = cluster.host(action.host);
        this.#excuseAll(action.forMs);
        cluster.cut(host);
        return cluster.queue.after(action.forMs, () => cluster.restore(host));
      }
      case 'partition':
        return this.#partition(action);
      case 'loss':
        return this.#lose(action.share, action.forMs);
      case 'jitter': {
        const { faults } = cluster.network;
        const before = faults.jitterMs;
        this.#excuseAll(action.forMs);
        faults.jitterMs = action.byMs;
        return cluster.queue.after(action.forMs, () => void (faults.jitterMs = before));
      }
      case 'pause':
        return this.#pause(cluster.host(action.host), action.forMs);
      case 'slow':
        return this.#slow(cluster.host(action.host), action.byMs, action.forMs);
      case 'starve':
        return this.#starve(action, cluster.queue.nowMs + action.forMs);
      case 'leave':
        return this.#leave(cluster.host(action.host));
      case 'change': {
        const host = cluster.host(action.host);
        host.facts = { ...host.facts, tags: { at: String(cluster.queue.nowMs) } };
        return cluster.tell(host, { kind: 'local', facts: host.facts });
      }
      case 'slander':
        return this.#slander(cluster.host(action.host), cluster.host(action.subject), action.evidence);
      case 'clockJump':
        cluster.host(action.host).wallErrorMs += action.byMs;
        return;
      case 'clone': {
        const host = cluster.host(action.host);
        this.#excuse(host.id, action.forMs + GRACE_MS);
        cluster.startClone(host);
        return cluster.queue.after(action.forMs, () => cluster.killClone(host));
      }
      case 'outage':
        this.#excuseAll(action.forMs);
        for (const host of cluster.hosts)
          this.#stopFor(host, cluster.random.between(0.5, 1) * action.forMs, false);
        return;
    }
  }

  #stopFor(host: Host, forMs: number, forget: boolean): void {
    const cluster = this.#cluster;
    cluster.kill(host);
    cluster.queue.after(forMs, () => {
      if (!this.#left.has(host.id)) cluster.start(host, { forget });
    });
  }

  #restart(host: Host, forMs: number): void {
    const cluster = this.#cluster;
    const nowMs = cluster.queue.nowMs;
    const often = nowMs - (this.#restartedMs.get(host.id) ?? Number.NEGATIVE_INFINITY) < 310_000;
    this.#restartedMs.set(host.id, nowMs);
    // Longer than its window, or again within five minutes: then the verdict is right.
    if (forMs > 9000 || often) this.#excuse(host.id, forMs + GRACE_MS);
    cluster.tell(host, { kind: 'goodbye', goodbye: 'restart' });
    cluster.queue.after(200, () => this.#stopFor(host, forMs, false));
  }

  #partition(action: Extract<Action, { kind: 'partition' }>): void {
    const cluster = this.#cluster;
    const inside = new Set(action.hosts.map((index) => cluster.host(index).id));
    const blocks = (from: PeerId, to: PeerId): boolean =>
      inside.has(from) !== inside.has(to) && (!action.oneWay || inside.has(from));
    // A shorter one is over before two accusers could condemn anybody.
    if (action.forMs >= presets.lan.suspicionMs) this.#excuseAll(action.forMs);
    cluster.blocks.add(blocks);
    cluster.queue.after(action.forMs, () => cluster.blocks.delete(blocks));
  }

  #lose(share: number, forMs: number): void {
    const cluster = this.#cluster;
    // Small clusters have too few witnesses to promise anything under loss.
    if (share > 0.1 || this.#scenario.nodes < 6) this.#excuseAll(forMs);
    this.#lossUntilMs = Math.max(this.#lossUntilMs, cluster.queue.nowMs + forMs + GRACE_MS);
    cluster.network.faults.loss = share;
    cluster.queue.after(forMs, () => {
      cluster.network.faults.loss = 0;
    });
  }

  #pause(host: Host, forMs: number): void {
    const cluster = this.#cluster;
    const nowMs = cluster.queue.nowMs;
    const again = nowMs - (this.#pausedUntilMs.get(host.id) ?? Number.NEGATIVE_INFINITY) < 2000;
    if (forMs > 1000 || again || this.#starvedBy.get(host.id) !== undefined || this.#lossUntilMs > nowMs)
      this.#excuse(host.id, forMs + GRACE_MS);
    cluster.pause(host, forMs);
    this.#pausedUntilMs.set(host.id, nowMs + forMs);
  }

  /** A core that others hog, or a quota of CPU time that is used up again and again; a twentieth of it is left. */
  #starve(action: Extract<Action, { kind: 'starve' }>, untilMs: number): void {
    const cluster = this.#cluster;
    const host = cluster.host(action.host);
    // Two such at once, or on top of a stop, may add up to a host that does not run at all.
    const idle = this.#starvedBy.get(host.id) ?? action;
    if (idle !== action) return;
    this.#starvedBy.set(host.id, cluster.queue.nowMs < untilMs ? action : undefined);
    if (this.isStill(host) || this.#lossUntilMs > cluster.queue.nowMs)
      this.#excuse(host.id, action.stopMs + GRACE_MS);
    cluster.pause(host, action.stopMs);
    this.#pausedUntilMs.set(host.id, cluster.queue.nowMs + action.stopMs);
    if (cluster.queue.nowMs < untilMs)
      cluster.queue.after(action.stopMs + action.runMs, () => this.#starve(action, untilMs));
  }

  #slow(host: Host, byMs: number, forMs: number): void {
    const { process } = host;
    if (process === undefined) return;
    if (byMs > 10) this.#excuse(host.id, forMs + GRACE_MS);
    process.slowMs = byMs;
    this.#cluster.queue.after(forMs, () => {
      process.slowMs = 0;
    });
  }

  #leave(host: Host): void {
    const cluster = this.#cluster;
    if (cluster.hosts.length - this.#left.size <= 2 || host.process?.running !== true) return;
    this.#left.add(host.id);
    cluster.tell(host, { kind: 'leave' });
    cluster.queue.after(2000, () => cluster.tell(host, { kind: 'departed' }));
    cluster.queue.after(3000, () => cluster.kill(host));
  }

  /** A member with a valid key lies: it accuses another to everybody, at the right incarnation. */
  #slander(host: Host, subject: Host, evidence: Evidence = 'closed'): void {
    const incarnation = subject.process?.membership.view.members.find((member) => member.self)?.record
      .incarnation;
    if (incarnation === undefined) return;
    const nothing = new Uint8Array(0);
    const accusation = { subject: subject.id, incarnation, accuser: host.id, evidence };
    const message = {
      kind: 'batch',
      records: [],
      accusations: [{ accusation, payload: nothing, signature: nothing }],
    } as const;
    for (const other of this.#cluster.hosts)
      if (other !== host && other !== subject)
        this.#cluster.tell(other, { kind: 'received', from: host.id, message, via: 'gossip' });
  }

  #keepLog(): void {
    this.#cluster.watchers.push((process, _event, effects) => {
      this.#events += 1;
      for (const effect of effects)
        if (effect.kind === 'changed')
          this.#note(
            `${process.host.name}: ${effect.member.record.name} ${effect.was ?? 'unknown'} → ${effect.member.state} ` +
              `(${effect.member.record.incarnation}.${effect.member.record.sequence}) ${effect.why}`,
          );
    });
  }

  #note(line: string): void {
    this.#log.push(`${(this.#cluster.queue.nowMs / 1000).toFixed(3)} ${line}`);
    if (this.#log.length > 400) this.#log.splice(0, 100);
  }
}
