import type { Rule } from '../../src/daemon/membership/core.ts';
import { createMembership } from '../../src/daemon/membership/machine.ts';
import { type Preset, presets } from '../../src/daemon/membership/preset.ts';
import { createSeeded, type Seeded } from '../../src/daemon/membership/seeded.ts';
import type {
  Admitted,
  Effect,
  Event,
  LocalFacts,
  Membership,
  Message,
  NodeRecord,
  PeerId,
  SignedAccusation,
  SignedRecord,
  Signer,
  Snapshot,
} from '../../src/daemon/membership/types.ts';
import { createNetwork, type Network, type Sender, type Stream, tcp } from './network.ts';
import { createQueue, type Queue } from './queue.ts';

/**
 * Hosts in virtual time, each with one process of the very machine that the daemon runs, and with what its surroundings
 * do to it: an event loop that is busy or stopped (timers come before sockets, as in Node), connections, gossip with
 * its measured cost, a clock of its own.
 */
export interface ClusterOptions {
  readonly nodes: number;
  readonly seed: number;
  readonly preset?: Preset;
  readonly withoutRules?: readonly Rule[];
}

export interface Host {
  readonly id: PeerId;
  readonly name: string;
  readonly admitted: Admitted;
  /** Power and network card: a host that is down answers nothing, not even a refusal. */
  up: boolean;
  process: Process | undefined;
  /** A second machine that was started from a copy of this one's disk: same key, same snapshot. */
  clone: Process | undefined;
  disk: Snapshot | undefined;
  starts: number;
  /** Rate of the host's clock against true time. */
  drift: number;
  /** How wrong its time of day is. The machine's own clock is monotonic and does not jump with it. */
  wallErrorMs: number;
  facts: LocalFacts;
}

export interface Process {
  readonly host: Host;
  readonly startId: string;
  readonly membership: Membership;
  readonly bornMs: number;
  readonly clockOffsetMs: number;
  running: boolean;
  /** Busy or stopped until then. */
  readyMs: number;
  /** Extra milliseconds that every event costs: a starved CPU. */
  slowMs: number;
  wakes: boolean;
  /** What the loop has taken up for its present round, and what waits for the next: timers, sockets. */
  round: Pending[];
  timers: Pending[];
  sockets: Pending[];
  readonly connections: Map<PeerId, Connection[]>;
  readonly dialling: Set<PeerId>;
}

interface Pending {
  readonly event: Event;
  readonly costMs: number;
  readonly after: (() => void) | undefined;
}

interface Connection {
  readonly ends: readonly [Process, Process];
  readonly streams: readonly [Stream, Stream];
  readonly senders: readonly [Sender, Sender];
  open: boolean;
}

interface Gossip {
  readonly message: Extract<Message, { kind: 'batch' }>;
  readonly bytes: number;
  readonly seen: Set<Process>;
}

/** Costs on one core, libp2p.md: 8 ms of CPU and 6 kB per node for a gossiped message, all its copies included. */
const GOSSIP_FIRST_MS = 5;
const GOSSIP_COPY_MS = 0.5;
const GOSSIP_BYTES = 1000;
const STREAM_MESSAGE_MS = 0.05;
const TIMER_MS = 0.02;
/** Gossipsub's mesh degree. */
const MESH = 6;

export type Watcher = (process: Process, event: Event, effects: readonly Effect[]) => void;

export interface Cluster {
  readonly queue: Queue;
  readonly network: Network;
  readonly random: Seeded;
  readonly hosts: readonly Host[];
  readonly watchers: Watcher[];
  readonly onAccusation: ((signed: SignedAccusation, by: Process) => void)[];
  /** Gossip messages published so far, by all. */
  readonly published: number;
  readonly records: WeakSet<NodeRecord>;
  /** Each says whether it stops segments on a way. Hosts that are down are cut off besides. */
  readonly blocks: Set<(from: PeerId, to: PeerId) => boolean>;
  host(index: number): Host;
  start(host: Host, options?: { founder?: boolean; forget?: boolean }): Process;
  /** Nobody dials it, since the address is the other one's; it dials everybody. */
  startClone(host: Host): void;
  killClone(host: Host): void;
  /** The process ends at once; its kernel says so to all peers. */
  kill(host: Host): void;
  /** Power off or cable out: nothing says anything. */
  cut(host: Host): void;
  restore(host: Host): void;
  pause(host: Host, forMs: number): void;
  tell(host: Host, event: Event): void;
  run(forMs: number): void;
  running(): Process[];
}

export function createCluster(options: ClusterOptions): Cluster {
  return new World(options);
}

class World implements Cluster {
  readonly queue = createQueue();
  readonly random: Seeded;
  readonly network: Network;
  readonly hosts: Host[] = [];
  readonly watchers: Watcher[] = [];
  readonly onAccusation: ((signed: SignedAccusation, by: Process) => void)[] = [];
  readonly records = new WeakSet<NodeRecord>();
  readonly blocks = new Set<(from: PeerId, to: PeerId) => boolean>();
  published = 0;
  readonly #byId = new Map<PeerId, Host>();
  readonly #preset: Preset;
  readonly #withoutRules: readonly Rule[];

  constructor(options: ClusterOptions) {
    this.random = createSeeded(options.seed);
    this.network = createNetwork(this.queue, this.random);
    this.#preset = options.preset ?? presets.lan;
    this.#withoutRules = options.withoutRules ?? [];
    for (let index = 0; index < options.nodes; index += 1) this.hosts.push(newHost(index));
    for (const host of this.hosts) this.#byId.set(host.id, host);
    this.network.faults.reaches = (from, to) => this.#reaches(from, to);
  }

  #reaches(from: PeerId, to: PeerId): boolean {
    for (const blocks of this.blocks) if (blocks(from, to)) return false;
    return true;
  }

  host(index: number): Host {
    const host = this.hosts[index];
    if (host === undefined) throw new Error(`no host ${index}`);
    return host;
  }

  running(): Process[] {
    return this.hosts.flatMap((host) => (host.process?.running === true ? host.process : []));
  }

  run(forMs: number): void {
    this.queue.runUntil(this.queue.nowMs + forMs);
  }

  start(host: Host, { founder = false, forget = false } = {}): Process {
    if (host.process?.running === true) return host.process;
    host.up = true;
    if (forget) host.disk = undefined;
    host.process = this.#spawn(host, founder);
    return host.process;
  }

  startClone(host: Host): void {
    if (host.process?.running !== true || host.clone?.running === true) return;
    host.disk = host.process.membership.snapshot();
    host.clone = this.#spawn(host, false);
  }

  killClone(host: Host): void {
    if (host.clone?.running === true) this.#end(host.clone);
  }

  #spawn(host: Host, founder: boolean): Process {
    host.starts += 1;
    const startId = `${host.starts.toString(16).padStart(8, '0')}${host.id.slice(-8)}`;
    const process: Process = {
      host,
      startId,
      membership: createMembership({
        self: firstRecord(host, startId, this.queue.nowMs),
        signer: this.#signer(() => process),
        preset: this.#preset,
        seed: Math.floor(this.random.fraction() * 2 ** 32),
        withoutRulesForTests: this.#withoutRules,
      }),
      bornMs: this.queue.nowMs,
      clockOffsetMs: this.random.between(0, 1e6),
      running: true,
      readyMs: 0,
      slowMs: 0,
      wakes: false,
      round: [],
      timers: [],
      sockets: [],
      connections: new Map(),
      dialling: new Set(),
    };
    const roster = this.hosts.map((one) => one.admitted);
    this.#deliver(process, { kind: 'start', roster, snapshot: host.disk, founder }, TIMER_MS);
    return process;
  }

  kill(host: Host): void {
    const { process } = host;
    if (process?.running !== true) return;
    host.disk = process.membership.snapshot();
    this.#end(process);
  }

  #end(process: Process): void {
    process.running = false;
    for (const connections of process.connections.values())
      for (const connection of connections) if (process.host.up) this.#finish(connection, process);
  }

  cut(host: Host): void {
    host.up = false;
  }

  restore(host: Host): void {
    host.up = true;
  }

  pause(host: Host, forMs: number): void {
    const { process } = host;
    if (process === undefined) return;
    process.readyMs = Math.max(process.readyMs, this.queue.nowMs + forMs);
  }

  tell(host: Host, event: Event): void {
    if (host.process !== undefined) this.#deliver(host.process, event, TIMER_MS);
  }

  #signer(by: () => Process): Signer {
    const nothing = new Uint8Array(0);
    return {
      record: (record): SignedRecord => {
        this.records.add(record);
        return { record, payload: nothing, signature: nothing };
      },
      accusation: (accusation): SignedAccusation => {
        const signed = { accusation, payload: nothing, signature: nothing };
        for (const watch of this.onAccusation) watch(signed, by());
        return signed;
      },
    };
  }

  /** The event loop: what comes while it is busy or stopped waits. */
  #deliver(process: Process, event: Event, costMs: number, after?: () => void): void {
    if (!process.running) return;
    if (process.readyMs <= this.queue.nowMs && !hasWork(process))
      return this.#handle(process, event, costMs, after);
    (event.kind === 'timer' ? process.timers : process.sockets).push({ event, costMs, after });
    this.#wake(process);
  }

  #wake(process: Process): void {
    if (process.wakes) return;
    process.wakes = true;
    this.queue.at(process.readyMs, () => {
      process.wakes = false;
      this.#drain(process);
    });
  }

  /** Rounds as Node's loop makes them: all timers that are due, then all that the sockets hold. */
  #drain(process: Process): void {
    while (process.running && process.readyMs <= this.queue.nowMs && hasWork(process)) {
      if (process.round.length === 0) {
        process.round = [...process.timers, ...process.sockets].reverse();
        process.timers = [];
        process.sockets = [];
      }
      const next = process.round.pop();
      if (next !== undefined) this.#handle(process, next.event, next.costMs, next.after);
    }
    if (process.running && hasWork(process)) this.#wake(process);
  }

  #handle(process: Process, event: Event, costMs: number, after: (() => void) | undefined): void {
    process.readyMs = Math.max(process.readyMs, this.queue.nowMs) + costMs + process.slowMs;
    const effects = process.membership.step(event, this.#clock(process));
    for (const effect of effects) this.#perform(process, effect);
    for (const watch of this.watchers) watch(process, event, effects);
    after?.();
  }

  #clock(process: Process): number {
    return (this.queue.nowMs - process.bornMs) * process.host.drift + process.clockOffsetMs;
  }

  #perform(process: Process, effect: Effect): void {
    switch (effect.kind) {
      case 'send':
        return this.#send(process, effect.to, effect.message);
      case 'publish':
        this.published += 1;
        return this.#spread(process, {
          message: effect.message,
          bytes: sizeOf(effect.message),
          seen: new Set([process]),
        });
      case 'schedule': {
        const { timer } = effect;
        return this.queue.after(effect.afterMs / process.host.drift, () =>
          this.#deliver(process, { kind: 'timer', timer }, TIMER_MS),
        );
      }
      case 'connect':
        return this.#dial(process, effect.peer);
      case 'disconnect':
        for (const connection of process.connections.get(effect.peer) ?? []) this.#close(connection, process);
        return;
      case 'clone':
        if (effect.mustStop) this.#end(process);
        return;
      case 'changed':
      case 'synced':
      case 'reaped':
      case 'note':
        return;
    }
  }

  #over(process: Process, peer: PeerId, bytes: number, arrive: (at: Process) => void): void {
    const connection = process.connections.get(peer)?.at(-1);
    if (connection === undefined) return;
    const end = connection.ends[0] === process ? 0 : 1;
    const other = connection.ends[1 - end] as Process;
    this.network.send(connection.streams[end], connection.senders[end], bytes, () => {
      if (connection.open && other.running) arrive(other);
      // The other host says that it knows no such connection.
      else if (other.host.up && !other.running) this.#remove(connection, process);
    });
  }

  #send(process: Process, to: PeerId, message: Message): void {
    const from = process.host.id;
    this.#over(process, to, sizeOf(message), (at) =>
      this.#deliver(at, { kind: 'received', from, message, via: 'stream' }, STREAM_MESSAGE_MS),
    );
  }

  #spread(process: Process, gossip: Gossip): void {
    const links = [...process.connections.keys()];
    for (const peer of gossip.seen.size === 1 ? links : this.random.sample(links, MESH))
      this.#over(process, peer, gossip.bytes + GOSSIP_BYTES, (at) =>
        this.#gossipArrives(process, at, gossip),
      );
  }

  #gossipArrives(from: Process, at: Process, gossip: Gossip): void {
    if (gossip.seen.has(at)) {
      at.readyMs = Math.max(at.readyMs, this.queue.nowMs) + GOSSIP_COPY_MS;
      return;
    }
    gossip.seen.add(at);
    const event: Event = { kind: 'received', from: from.host.id, message: gossip.message, via: 'gossip' };
    this.#deliver(at, event, GOSSIP_FIRST_MS, () => this.#spread(at, gossip));
  }

  #dial(process: Process, peer: PeerId): void {
    const target = this.#byId.get(peer);
    if (target === undefined || process.dialling.has(peer) || process.connections.has(peer)) return;
    process.dialling.add(peer);
    const from = process.host;
    const tripMs = this.network.tripsMs(from, target, 1, tcp.synRtoMs, tcp.dialTimeoutMs);
    if (tripMs === undefined || !target.up || !process.host.up)
      return this.#dialEnds(process, peer, tcp.dialTimeoutMs, false);
    const listening = target.process;
    if (listening === undefined || !listening.running) return this.#dialEnds(process, peer, tripMs, true);
    const leftMs = this.network.tripsMs(from, target, 2, tcp.rtoMinMs, tcp.dialTimeoutMs - tripMs);
    if (leftMs === undefined) return this.#dialEnds(process, peer, tcp.dialTimeoutMs, false);
    this.queue.after(tripMs + leftMs + tcp.handshakeMs, () =>
      this.#shakeHands(process, listening, this.queue.nowMs),
    );
  }

  /** Noise needs both processes: one that is stopped lets the dialler wait, the kernel alone cannot answer. */
  #shakeHands(process: Process, listening: Process, sinceMs: number): void {
    const peer = listening.host.id;
    if (!process.running) return;
    if (!listening.running) return this.#dialEnds(process, peer, 0, true);
    const reachable =
      listening.host.up && process.host.up && this.network.faults.reaches(process.host.id, peer);
    if (!reachable) return this.#dialEnds(process, peer, tcp.dialTimeoutMs, false);
    if (this.queue.nowMs - sinceMs > tcp.dialTimeoutMs) return this.#dialEnds(process, peer, 0, false);
    if (listening.readyMs > this.queue.nowMs + 50)
      return this.queue.at(listening.readyMs, () => this.#shakeHands(process, listening, sinceMs));
    process.dialling.delete(peer);
    this.#open(process, listening);
  }

  #dialEnds(process: Process, peer: PeerId, afterMs: number, refused: boolean): void {
    this.queue.after(afterMs, () => {
      process.dialling.delete(peer);
      this.#deliver(process, { kind: 'dialFailed', peer, refused }, TIMER_MS);
    });
  }

  #open(one: Process, other: Process): void {
    const { network } = this;
    const sender = (by: Process): Sender => ({
      alive: () => connection.open && by.running,
      gaveUp: () => this.#remove(connection, by),
    });
    const connection: Connection = {
      ends: [one, other],
      streams: [network.stream(one.host, other.host), network.stream(other.host, one.host)],
      senders: [sender(one), sender(other)],
      open: true,
    };
    for (const [end, peer] of [
      [one, other.host.id],
      [other, one.host.id],
    ] as const) {
      // One link per peer: another process under the same key takes the place of the first.
      for (const old of [...(end.connections.get(peer) ?? [])])
        if (!old.ends.every((each) => connection.ends.includes(each))) this.#close(old, end);
      const connections = end.connections.get(peer) ?? [];
      connections.push(connection);
      end.connections.set(peer, connections);
      if (connections.length === 1) this.#deliver(end, { kind: 'connected', peer }, TIMER_MS);
    }
  }

  /** One end closes in order: what it sent before still arrives. */
  #close(connection: Connection, by: Process): void {
    this.#finish(connection, by);
    this.#remove(connection, by);
  }

  #finish(connection: Connection, by: Process): void {
    const end = connection.ends[0] === by ? 0 : 1;
    const other = connection.ends[1 - end] as Process;
    this.network.send(connection.streams[end], { alive: () => connection.open, gaveUp: () => {} }, 0, () => {
      connection.open = false;
      this.#remove(connection, other);
    });
  }

  #remove(connection: Connection, at: Process): void {
    const peer = (connection.ends[0] === at ? connection.ends[1] : connection.ends[0]).host.id;
    const connections = at.connections.get(peer);
    const index = connections?.indexOf(connection) ?? -1;
    if (connections === undefined || index < 0) return;
    connections.splice(index, 1);
    if (connections.length > 0) return;
    at.connections.delete(peer);
    this.#deliver(at, { kind: 'disconnected', peer }, TIMER_MS);
  }
}

function hasWork(process: Process): boolean {
  return process.round.length + process.timers.length + process.sockets.length > 0;
}

function newHost(index: number): Host {
  const id = `12D3Koo${(index * 7919 + 104_729).toString(36).padStart(8, '0')}`;
  const role = index % 2 === 0 ? 'app' : 'db';
  const name = `node${String(index).padStart(3, '0')}/${role}`;
  const address = `10.0.${index >> 8}.${index & 255}`;
  return {
    id,
    name,
    admitted: { peerId: id, name, role, address },
    up: true,
    process: undefined,
    clone: undefined,
    disk: undefined,
    starts: 0,
    drift: 1,
    wallErrorMs: 0,
    facts: {
      health: 'up',
      maintenance: false,
      services: [],
      tags: {},
      load: 10,
      settingsDigest: '0123456789abcdef',
    },
  };
}

/** Unix seconds, as the daemon does it; the clusters live in their own epoch. */
function firstRecord(host: Host, startId: string, nowMs: number): NodeRecord {
  const { peerId, name, role, address } = host.admitted;
  return {
    peerId,
    name,
    role,
    address,
    port: role === 'app' ? 4101 : 4103,
    incarnation: 1_000_000 + Math.floor((nowMs + host.wallErrorMs) / 1000),
    sequence: 0,
    startId,
    version: '0.1.0',
    protocolMin: 1,
    protocolMax: 1,
    status: 'alive',
    ...host.facts,
  };
}

/** Encoded sizes in bytes, as the wire's codec makes them. */
export function sizeOf(message: Message): number {
  switch (message.kind) {
    case 'ping':
    case 'ack':
    case 'unlink':
      return 6;
    case 'pingRequest':
    case 'pingReport':
      return 66;
    case 'batch':
      return 8 + 350 * message.records.length + 200 * message.accusations.length;
    case 'digest':
      return 16 + 66 * message.entries.length;
    case 'delta':
      return 12 + 350 * message.records.length + 200 * message.accusations.length + 56 * message.wants.length;
  }
}
