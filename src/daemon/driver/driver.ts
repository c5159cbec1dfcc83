import { Incoming, type Vetted } from './incoming.ts';
import type {
  Admitted,
  Effect,
  Event,
  Goodbye,
  LocalFacts,
  Membership,
  MembershipView,
  Message,
  NodeRecord,
  PeerId,
  Snapshot,
  Timer,
} from '../membership/types.ts';
import {
  answerRosterSync,
  ROSTER_PROTOCOL,
  type RosterChanges,
  type RosterSync,
  syncRoster,
} from './roster-sync.ts';
import { readSnapshot, SnapshotKeeper } from './snapshot-file.ts';
import { TokenBucket } from './token-bucket.ts';
import { TransportError } from '../transport/errors.ts';
import type { GossipVerdict } from '../transport/gossip.ts';
import type { Gate, Transport, TransportEvents } from '../transport/transport.ts';
import { encodeMessage } from '../wire/message.ts';
import type { Verify } from '../wire/record.ts';
import { factsProblem } from '../wire/values.ts';

type TransportPort = Pick<
  Transport,
  | 'start'
  | 'close'
  | 'connect'
  | 'disconnect'
  | 'send'
  | 'publish'
  | 'request'
  | 'handle'
  | 'peers'
  | 'charge'
>;

/** Who belongs to the cluster, by certificate. */
export interface Roster extends RosterSync {
  /** Admitted and not revoked members, self included. */
  members(): readonly Admitted[];
  /** undefined: unknown or revoked. */
  find(peer: PeerId): Admitted | undefined;
  /** Verifies a chain that an unknown PeerId presents, and keeps it. undefined: refused. */
  admit(peer: PeerId, chain: Uint8Array): Promise<Admitted | undefined>;
  /** The signed revocation of a removed member. */
  revocationOf?(peer: PeerId): Uint8Array | undefined;
  /** Accepts a verified revocation of this node itself; ignores anything else. */
  refusedWith?(revocation: Uint8Array): void;
}

interface DriverOptions {
  readonly self: PeerId;
  /** True for the node that created the cluster; only used without a snapshot. */
  readonly founder: boolean;
  readonly snapshotPath: string;
  readonly timing?: Partial<DriverTiming>;
}

export interface DriverTiming {
  /**
   * The loop's own heartbeat: the machine gets an event if the loop is late by more than lagMs. Seldom, since the
   * machine's own timers show it too, and wake-ups are the cost of an idle process.
   */
  readonly beatMs: number;
  readonly lagMs: number;
  /** A roster sync with one linked peer, in turn. */
  readonly rosterSyncMs: number;
  /** At most one snapshot in this time; after a failed write, the time until the next attempt. */
  readonly snapshotMs: number;
  readonly snapshotRetryMs: number;
  /** One note of a code in this time; the rest is counted. */
  readonly noteMs: number;
}

export const DEFAULT_DRIVER_TIMING: DriverTiming = {
  beatMs: 1000,
  lagMs: 50,
  rosterSyncMs: 30_000,
  snapshotMs: 2000,
  snapshotRetryMs: 30_000,
  noteMs: 10_000,
};

interface DriverDependencies {
  readonly machine: Membership;
  readonly transport: (events: TransportEvents, gate: Gate) => TransportPort;
  readonly roster: Roster;
  readonly verify: Verify;
  /** Monotonic. */
  readonly clock?: { nowMs(): number };
  /** At most one per code in noteMs. `code` is stable. */
  readonly onNote: (code: string, peer: PeerId | undefined, detail: string) => void;
}

/** Changes of the membership; the view is already the new one. */
export type DriverChange = Extract<Effect, { kind: 'changed' | 'synced' | 'reaped' | 'clone' | 'note' }>;

interface DriverCounters {
  turns: number;
  received: number;
  /** Messages of a later version or an unknown kind. */
  later: number;
  /** Messages, or parts of them, that are the sender's fault. */
  faults: number;
  /** Messages with statements of a member that sends more than any member needs. */
  overdone: number;
  /** Gossip that brought nothing new and was not forwarded. */
  notHandedOn: number;
  sent: number;
  unsent: number;
  published: number;
  dialsFailed: number;
  lags: number;
  snapshots: number;
  rosterSyncs: number;
  notesSuppressed: number;
  /** How often a member became suspect, or dead. */
  suspicions: number;
  deaths: number;
}

/** The cost of gossipsub and of forwarding one message to four neighbours: 3 ms in addition to reading it. */
const GOSSIP_MS = 3;
/** A refused certificate, revocation or change of the root costs one or two RSA signature checks. */
const REFUSED_ITEM_MS = 0.5;
/**
 * Known gossip of one neighbour that is still forwarded, as others may lack it. In a storm some messages are a moment
 * late; a peer that only repeats is not forwarded.
 */
const REPEATS_BURST = 32;
const REPEATS_PER_SECOND = 1;
/** Roster syncs because a peer mentions members that are unknown here: an admission, and the next one. */
const UNKNOWN_BURST = 4;
const UNKNOWN_PER_SECOND = 0.5;
/** Faults of one peer before it is disconnected: bugs and old versions get some tolerance, floods do not. */
const FAULTS_BURST = 16;
const FAULTS_PER_SECOND = 0.2;

interface PeerAccount {
  readonly faults: TokenBucket;
  readonly repeats: TokenBucket;
  readonly unknowns: TokenBucket;
}

/**
 * The one loop of a daemon: everything becomes an event of the membership machine, and its effects are carried out in
 * order. Nothing else touches the machine. Input from the network is first decoded, bounded and verified; output is
 * encoded here.
 */
export class Driver {
  readonly counters: DriverCounters = {
    turns: 0,
    received: 0,
    later: 0,
    faults: 0,
    overdone: 0,
    notHandedOn: 0,
    sent: 0,
    unsent: 0,
    published: 0,
    dialsFailed: 0,
    lags: 0,
    snapshots: 0,
    rosterSyncs: 0,
    notesSuppressed: 0,
    suspicions: 0,
    deaths: 0,
  };
  readonly #options: DriverOptions;
  readonly #timing: DriverTiming;
  readonly #machine: Membership;
  readonly #roster: Roster;
  readonly #transport: TransportPort;
  readonly #incoming: Incoming;
  readonly #snapshots: SnapshotKeeper;
  readonly #onNote: DriverDependencies['onNote'];
  readonly #nowMs: () => number;

  readonly #queue: Event[] = [];
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #listeners = new Set<(change: DriverChange) => void>();
  /** By peer in the roster; an entry goes with its member. */
  readonly #accounts = new Map<PeerId, PeerAccount>();
  readonly #notes = new Map<string, { untilMs: number; suppressed: number }>();
  readonly #syncing = new Set<PeerId>();
  /** The members of `view`, by PeerId. */
  #index: { readonly view: MembershipView; readonly records: Map<PeerId, NodeRecord> } | undefined;
  #memberAddresses: ReadonlySet<string> | undefined;
  #state: 'new' | 'running' | 'closed' = 'new';
  #turning = false;
  #beatDueMs = Number.POSITIVE_INFINITY;
  #lastTurnMs = 0;
  #nextSync = 0;

  constructor(options: DriverOptions, dependencies: DriverDependencies) {
    const { machine, roster, verify, clock, onNote } = dependencies;
    this.#options = options;
    this.#timing = { ...DEFAULT_DRIVER_TIMING, ...options.timing };
    this.#machine = machine;
    this.#roster = roster;
    this.#onNote = onNote;
    this.#nowMs = clock === undefined ? () => performance.now() : () => clock.nowMs();
    this.#incoming = new Incoming({
      find: (peer) => roster.find(peer),
      held: (peer) => this.#held(peer),
      verify,
      nowMs: this.#nowMs,
    });
    this.#snapshots = new SnapshotKeeper(
      { path: options.snapshotPath, everyMs: this.#timing.snapshotMs, retryMs: this.#timing.snapshotRetryMs },
      {
        take: () => machine.snapshot(),
        failed: (error) => this.#note('snapshot-failed', undefined, wordsOf(error)),
      },
    );
    this.#transport = dependencies.transport(this.#transportEvents(), this.#gate());
  }

  /** Reads the snapshot, listens, and starts the machine. Throws TransportError if it cannot listen. */
  async start(): Promise<void> {
    const snapshot = await this.#loadSnapshot();
    const changed = (changes: RosterChanges, from: PeerId): void => this.#rosterTaken(changes, from);
    this.#transport.handle(ROSTER_PROTOCOL, answerRosterSync(this.#roster, changed));
    await this.#transport.start();
    if (this.#state !== 'new') return;
    this.#state = 'running';
    const roster = this.#roster.members();
    // A node that has admitted others is no new cluster: without a snapshot it knows nothing about them, and must sync
    // first.
    const founder = this.#options.founder && snapshot === undefined && roster.length <= 1;
    this.#queue.unshift({ kind: 'start', roster, snapshot, founder });
    this.#beat();
    this.#every(this.#timing.rosterSyncMs, () => this.#syncNext());
  }

  /** Ends the loop, flushes what was sent, and stores a last snapshot. Works after a partial start, and twice. */
  async close(): Promise<void> {
    const wasRunning = this.#state === 'running';
    this.#state = 'closed';
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    await this.#transport.close();
    if (wasRunning) await this.#snapshots.close();
    this.counters.snapshots = this.#snapshots.writes;
  }

  get view(): MembershipView {
    return this.#machine.view;
  }

  /** Machine time of the last turn of the loop, at most beatMs ago while it is healthy. */
  get lastTurnMs(): number {
    return this.#lastTurnMs;
  }

  nowMs(): number {
    return this.#nowMs();
  }

  /** The linked peers. */
  peers(): PeerId[] {
    return this.#transport.peers();
  }

  /** Calls `listener` for each change until the returned function is called. A listener may call into the driver. */
  onChange(listener: (change: DriverChange) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Sets facts of this node's record. Facts that peers would refuse are noted and not published. */
  local(facts: LocalFacts): void {
    const problem = factsProblem(facts);
    if (problem !== undefined) return this.#note('facts-refused', this.#options.self, problem);
    this.#turn({ kind: 'local', facts });
  }

  goodbye(goodbye: Goodbye): void {
    this.#turn({ kind: 'goodbye', goodbye });
  }

  leave(): void {
    this.#turn({ kind: 'leave' });
  }

  departed(): void {
    this.#turn({ kind: 'departed' });
  }

  admitted(member: Admitted): void {
    this.#memberAddresses = undefined;
    this.#turn({ kind: 'admitted', member });
  }

  revoked(peer: PeerId): void {
    this.#memberAddresses = undefined;
    this.#accounts.delete(peer);
    this.#incoming.forget(peer);
    this.#turn({ kind: 'revoked', peer });
    this.#transport.disconnect(peer, 'revoked');
  }

  /** The roster was changed on this node: sends it to the linked peers now. */
  rosterChanged(): void {
    this.#memberAddresses = undefined;
    for (const peer of this.#transport.peers()) void this.#syncWith(peer);
  }

  // The loop

  /** Handles one event. Events caused by its effects (a disconnect, a listener) are queued. */
  #turn(event: Event): void {
    this.#queue.push(event);
    this.#run();
  }

  #run(): void {
    if (this.#turning || this.#state !== 'running') return;
    this.#turning = true;
    try {
      this.#feelLag();
      for (let event = this.#queue.shift(); event !== undefined; event = this.#queue.shift()) {
        this.counters.turns += 1;
        const nowMs = this.#nowMs();
        this.#lastTurnMs = nowMs;
        for (const effect of this.#machine.step(event, nowMs)) this.#carryOut(effect);
      }
    } finally {
      this.#turning = false;
    }
  }

  /**
   * After a stop (SIGSTOP, an overloaded host) all timers are due at once, and each would blame a peer for this node's
   * own absence. So the machine gets the lag before any other event.
   */
  #feelLag(): void {
    const lateMs = this.#nowMs() - this.#beatDueMs;
    if (lateMs <= this.#timing.lagMs) return;
    this.#beatDueMs = this.#nowMs() + this.#timing.beatMs;
    this.counters.lags += 1;
    const afterStart = this.#queue[0]?.kind === 'start' ? 1 : 0;
    this.#queue.splice(afterStart, 0, { kind: 'lag', lagMs: lateMs });
  }

  #beat(): void {
    this.#run();
    this.#lastTurnMs = this.#nowMs();
    this.#beatDueMs = this.#lastTurnMs + this.#timing.beatMs;
    this.#after(this.#timing.beatMs, () => this.#beat());
  }

  #carryOut(effect: Effect): void {
    switch (effect.kind) {
      case 'send':
        return this.#send(effect.to, effect.message);
      case 'publish':
        return this.#publish(effect.message);
      case 'schedule':
        return this.#schedule(effect.timer, effect.afterMs);
      case 'connect':
        return this.#connect(effect.peer, effect.address, effect.port);
      case 'disconnect':
        return this.#transport.disconnect(effect.peer, effect.reason);
      case 'note':
        this.#note(effect.code, effect.peer, effect.detail);
        return this.#tell(effect);
      case 'changed':
        this.#count(effect);
        this.#snapshots.touch();
        return this.#tell(effect);
      case 'reaped':
        this.#snapshots.touch();
        this.#incoming.forget(effect.peer);
        return this.#tell(effect);
      case 'synced':
      case 'clone':
        this.#tell(effect);
    }
  }

  #count({ member, was }: Extract<Effect, { kind: 'changed' }>): void {
    if (member.state === was) return;
    if (member.state === 'suspect') this.counters.suspicions += 1;
    if (member.state === 'dead') this.counters.deaths += 1;
  }

  #send(to: PeerId, message: Message): void {
    for (const frame of encodeMessage(message)) {
      if (this.#transport.send(to, frame)) this.counters.sent += 1;
      else this.counters.unsent += 1;
    }
  }

  #publish(message: Message): void {
    for (const frame of encodeMessage(message)) {
      this.#transport.publish(frame);
      this.counters.published += 1;
    }
  }

  #schedule(timer: Timer, afterMs: number): void {
    this.#after(afterMs, () => this.#turn({ kind: 'timer', timer }));
  }

  #connect(peer: PeerId, address: string, port: number): void {
    this.#transport.connect(peer, address, port).catch((error: unknown) => {
      if (this.#state !== 'running') return;
      this.counters.dialsFailed += 1;
      const code = error instanceof TransportError ? error.code : 'failed';
      if (code === 'not-admitted') this.#note('dial-refused', peer, wordsOf(error));
      // Only an answer of the host itself counts: a reset can be the other side's reaction to our own time limit (see
      // Transport).
      this.#turn({ kind: 'dialFailed', peer, refused: code === 'connection-refused' });
    });
  }

  #tell(change: DriverChange): void {
    for (const listener of this.#listeners) {
      try {
        listener(change);
      } catch (error) {
        this.#note('listener-failed', undefined, wordsOf(error));
      }
    }
  }

  #after(delayMs: number, then: () => void): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      then();
    }, delayMs).unref();
    this.#timers.add(timer);
  }

  #every(intervalMs: number, then: () => void): void {
    this.#after(intervalMs, () => {
      this.#every(intervalMs, then);
      then();
    });
  }

  // What comes from the network

  #transportEvents(): TransportEvents {
    return {
      onConnected: (peer) => {
        this.#turn({ kind: 'connected', peer });
        // One of the two asks; the exchange brings both up to date.
        if (this.#options.self < peer) void this.#syncWith(peer);
      },
      onDisconnected: (peer) => this.#turn({ kind: 'disconnected', peer }),
      onMessage: (from, bytes) => this.#onMessage(from, bytes),
      onGossip: (from, bytes) => this.#onGossip(from, bytes),
      onNote: (code, peer, detail) => this.#note(code, peer, detail),
    };
  }

  #gate(): Gate {
    return {
      isMember: (peer) => this.#roster.find(peer) !== undefined,
      isMemberAddress: (address) => this.#addresses().has(address),
      admit: async (peer, chain) => {
        const member = await this.#roster.admit(peer, chain);
        if (member !== undefined) this.admitted(member);
        return member !== undefined;
      },
      revocationOf: (peer) => this.#roster.revocationOf?.(peer),
      refusedWith: (revocation) => this.#roster.refusedWith?.(revocation),
    };
  }

  #addresses(): ReadonlySet<string> {
    this.#memberAddresses ??= new Set(this.#roster.members().map(({ address }) => address));
    return this.#memberAddresses;
  }

  #onMessage(from: PeerId, bytes: Uint8Array): void {
    const vetted = this.#vet(from, bytes);
    if (vetted.message !== undefined)
      this.#turn({ kind: 'received', from, message: vetted.message, via: 'stream' });
  }

  /** What is forwarded: only what an honest member would have sent to this node. */
  #onGossip(from: PeerId, bytes: Uint8Array): GossipVerdict {
    this.#transport.charge(from, GOSSIP_MS);
    const vetted = this.#vet(from, bytes);
    if (vetted.fault !== undefined) return 'reject';
    if (vetted.message === undefined) return 'ignore';
    if (vetted.message.kind !== 'batch') {
      this.#blame(from, `gossip of kind ${vetted.message.kind}`);
      return 'reject';
    }
    this.#turn({ kind: 'received', from, message: vetted.message, via: 'gossip' });
    return this.#goesOn(from, vetted) ? 'accept' : 'ignore';
  }

  /** Forwarding is expensive, and neighbours count it against this node: nothing is forwarded that only causes work. */
  #goesOn(from: PeerId, { news, overdone }: Vetted): boolean {
    if (overdone === undefined && (news || this.#accountOf(from).repeats.take(this.#nowMs()))) return true;
    this.counters.notHandedOn += 1;
    return false;
  }

  #vet(from: PeerId, bytes: Uint8Array): Vetted {
    this.counters.received += 1;
    const vetted = this.#incoming.vet(bytes);
    this.#transport.charge(from, vetted.workMs);
    if (vetted.later) this.counters.later += 1;
    if (vetted.overdone !== undefined) {
      this.counters.overdone += 1;
      this.#note('peer-floods', vetted.overdone, 'it sends more than any member needs; the rest is dropped');
    }
    if (vetted.fault !== undefined) this.#blame(from, vetted.fault);
    if (vetted.unknown && this.#accountOf(from).unknowns.take(this.#nowMs())) void this.#syncWith(from);
    return vetted;
  }

  #held(peer: PeerId): NodeRecord | undefined {
    const { view } = this.#machine;
    if (this.#index?.view !== view)
      this.#index = { view, records: new Map(view.members.map(({ record }) => [record.peerId, record])) };
    return this.#index.records.get(peer);
  }

  #blame(peer: PeerId, fault: string): void {
    this.counters.faults += 1;
    this.#note('peer-at-fault', peer, fault);
    if (this.#accountOf(peer).faults.take(this.#nowMs())) return;
    this.#note('peer-hung-up', peer, `too many faults, the last: ${fault}`);
    this.#transport.disconnect(peer, 'too many faults');
  }

  #accountOf(peer: PeerId): PeerAccount {
    let account = this.#accounts.get(peer);
    if (account === undefined) {
      const nowMs = this.#nowMs();
      account = {
        faults: new TokenBucket(FAULTS_BURST, FAULTS_PER_SECOND, nowMs),
        repeats: new TokenBucket(REPEATS_BURST, REPEATS_PER_SECOND, nowMs),
        unknowns: new TokenBucket(UNKNOWN_BURST, UNKNOWN_PER_SECOND, nowMs),
      };
      this.#accounts.set(peer, account);
    }
    return account;
  }

  // The roster

  #syncNext(): void {
    const peers = this.#transport.peers();
    this.#nextSync += 1;
    const peer = peers[this.#nextSync % peers.length];
    if (peer !== undefined) void this.#syncWith(peer);
  }

  async #syncWith(peer: PeerId): Promise<void> {
    if (this.#syncing.has(peer) || this.#state !== 'running') return;
    this.#syncing.add(peer);
    this.counters.rosterSyncs += 1;
    try {
      const { request } = this.#bound();
      this.#rosterTaken(await syncRoster(this.#roster, request, peer), peer);
    } catch (error) {
      // A link that ended meanwhile has its own event.
      const ended = error instanceof TransportError && ['not-connected', 'closed'].includes(error.code);
      if (!ended) this.#note('roster-sync-failed', peer, wordsOf(error));
    } finally {
      this.#syncing.delete(peer);
    }
  }

  #bound(): Pick<TransportPort, 'request'> {
    return { request: (...question) => this.#transport.request(...question) };
  }

  /** News from `from` is sent to all other linked peers, until all digests agree. */
  #rosterTaken({ admitted, revoked, refused = 0 }: RosterChanges, from: PeerId): void {
    this.#transport.charge(from, refused * REFUSED_ITEM_MS);
    if (this.#state !== 'running' || admitted.length + revoked.length === 0) return;
    for (const member of admitted) this.admitted(member);
    for (const peer of revoked) this.revoked(peer);
    for (const peer of this.#transport.peers()) if (peer !== from) void this.#syncWith(peer);
  }

  // The disk and the log

  /** Verified like everything from outside: signatures, roster, certificates. */
  async #loadSnapshot(): Promise<Snapshot | undefined> {
    const read = await readSnapshot(this.#options.snapshotPath);
    if (read === undefined) return undefined;
    if (!read.ok) {
      this.#note(
        'snapshot-unusable',
        undefined,
        `${this.#options.snapshotPath}: ${read.reason}; starting without it`,
      );
      return undefined;
    }
    const members = read.value.members.filter(({ signed }) => this.#incoming.holds(signed));
    return { ...read.value, members };
  }

  #note(code: string, peer: PeerId | undefined, detail: string): void {
    const nowMs = this.#nowMs();
    const last = this.#notes.get(code);
    if (last !== undefined && nowMs < last.untilMs) {
      last.suppressed += 1;
      this.counters.notesSuppressed += 1;
      return;
    }
    this.#notes.set(code, { untilMs: nowMs + this.#timing.noteMs, suppressed: 0 });
    const suppressed = last?.suppressed ?? 0;
    this.#onNote(code, peer, suppressed === 0 ? detail : `${detail} (and ${suppressed} more before)`);
  }
}

function wordsOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
