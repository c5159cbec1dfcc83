import { type Clockwork, createClockwork } from './clockwork.ts';
import { createLocalHealth, type LocalHealth } from './local-health.ts';
import { type Bucket, limits, takeToken } from './limits.ts';
import type { Preset } from './preset.ts';
import { createSeeded, type Seeded } from './seeded.ts';
import type {
  Admitted,
  Effect,
  LocalFacts,
  Member,
  MembershipView,
  MemberState,
  NodeRecord,
  PeerId,
  Role,
  SignedAccusation,
  SignedRecord,
  Signer,
  Timer,
} from './types.ts';

/** The rules that a test may disable, to see that an invariant of the simulator then fails. Only tests set them. */
export type Rule = 'incarnation' | 'second-observer' | 'refutation' | 'local-health' | 'last-call';

export interface MembershipOptions {
  /** First record of this process. `incarnation` should be unix seconds, so that it also rises without a snapshot. */
  readonly self: NodeRecord;
  readonly signer: Signer;
  readonly preset: Preset;
  /** Seed of all jitter and choice. Any 32-bit number; nodes should differ. */
  readonly seed: number;
  /** libp2p port of a peer whose record is not known yet. Default: app 4101, db 4103. */
  readonly ports?: Readonly<Record<Role, number>>;
  /** For mutation tests only. */
  readonly withoutRulesForTests?: readonly Rule[];
}

/** The state of one member, this node included. */
export interface Entry {
  readonly peerId: PeerId;
  signed: SignedRecord;
  state: MemberState;
  sinceMs: number;
  heardMs: number;
  /** By accuser, all against the present incarnation. */
  readonly accusations: Map<PeerId, SignedAccusation>;
  /** When this node accepted the first of them. */
  suspectedMs: number;
  /** End of the open goodbye window; 0 when none is open. */
  windowEndsMs: number;
  /** When the last goodbye was accepted: at most one in five minutes. */
  goodbyeMs: number;
  /** When another member last reached it for us. */
  vouchedMs: number;
  /** The incarnation for which others were asked, at the end of its time, about a refutation. */
  lastCalled: number;
  member: Member | undefined;
}

export interface Link {
  readonly peer: PeerId;
  readonly sinceMs: number;
  heardMs: number;
  /** When the link is pinged if nothing arrives before. */
  pingDueMs: number;
  /** Both ends have agreed to close it, or this node closes it. */
  unlinking: boolean;
  /** The other end has asked to close it: its end is no evidence. */
  mayClose: boolean;
  /** When we asked the other end to close it; 0: never. */
  askedMs: number;
}

/** How long a link may be silent before it is pinged. */
export function pingIntervalMs(core: Core): number {
  const { probeIntervalMs, linksPerInterval } = core.preset;
  return probeIntervalMs * Math.max(1, core.links.size / linksPerInterval);
}

export interface Probe {
  readonly nonce: number;
  readonly target: PeerId;
  /** `dial` waits longer for the first answer than a ping on a link. */
  readonly cause: 'period' | 'closed' | 'asked' | 'accused' | 'dial' | 'window';
  readonly startedMs: number;
  phase: 'direct' | 'indirect';
  deadlineMs: number;
  pinged: boolean;
  refused: boolean;
  /** False until the relay has reported that it did not reach the target. */
  readonly relays: Map<PeerId, boolean>;
}

export interface RelayDuty {
  readonly nonce: number;
  readonly asker: PeerId;
  readonly askerNonce: number;
  readonly target: PeerId;
}

interface Tombstone {
  readonly incarnation: number;
  /** A member that left is not dialled any more; a dead one is dialled for ever. */
  readonly left: boolean;
  readonly untilMs: number;
}

export interface Dial {
  failures: number;
  nextMs: number;
}

/** Something to send. `readyMs` is its earliest time on gossip; `streamed`: some links have it already. */
export interface Outgoing {
  readyMs: number;
  streamed: boolean;
  /** An accusation, a refutation, or our own goodbye: these go first. */
  readonly urgent: boolean;
}

/**
 * A message of gossip, for the estimate of the cluster's rate. `author`: the one member that signed all of it, if there
 * is one.
 */
interface GossipHeard {
  readonly atMs: number;
  readonly author: PeerId | undefined;
}

export interface Core {
  readonly options: MembershipOptions;
  readonly preset: Preset;
  readonly signer: Signer;
  readonly random: Seeded;
  readonly selfId: PeerId;
  readonly health: LocalHealth;
  readonly clockwork: Clockwork;
  readonly without: ReadonlySet<Rule>;
  nowMs: number;
  effects: Effect[];
  started: boolean;
  /** A clone that has to stop sends nothing more. */
  halted: boolean;
  synced: boolean;
  readonly roster: Map<PeerId, Admitted>;
  readonly entries: Map<PeerId, Entry>;
  readonly tombstones: Map<PeerId, Tombstone>;
  readonly links: Map<PeerId, Link>;
  /** By target: one at a time. */
  readonly probes: Map<PeerId, Probe>;
  readonly duties: Map<number, RelayDuty>;
  readonly dials: Map<PeerId, Dial>;
  readonly outgoingRecords: Map<PeerId, Outgoing>;
  readonly outgoingAccusations: Map<SignedAccusation, Outgoing>;
  readonly accuserBuckets: Map<PeerId, Bucket>;
  readonly syncBuckets: Map<PeerId, Bucket>;
  readonly noteBucket: Bucket;
  readonly ownBucket: Bucket;
  readonly gossipHeard: GossipHeard[];
  readonly otherStarts: Map<string, { readonly earlier: boolean; answeredTo: number; rounds: number }>;
  facts: LocalFacts;
  factsSignedMs: number;
  /** Set while a change of the own record waits to be sent. */
  ownWaits: 'traffic' | 'other' | undefined;
  syncPartner: PeerId | undefined;
  syncStartedMs: number;
  syncRound: number;
  nonce: number;
  readonly epochs: Record<'probe' | 'flush' | 'sync' | 'links' | 'reap', number>;
  readonly dueMs: Record<'probe' | 'flush' | 'sync' | 'links' | 'reap', number>;
  viewVersion: number;
  viewBuilt: MembershipView | undefined;
}

export function createCore(options: MembershipOptions): Core {
  const { self, preset } = options;
  const zero = () => ({ probe: 0, flush: 0, sync: 0, links: 0, reap: 0 });
  const without = new Set(options.withoutRulesForTests);
  return {
    options,
    preset,
    signer: options.signer,
    random: createSeeded(options.seed),
    selfId: self.peerId,
    health: createLocalHealth(preset, !without.has('local-health')),
    clockwork: createClockwork(),
    without,
    nowMs: 0,
    effects: [],
    started: false,
    halted: false,
    synced: false,
    roster: new Map(),
    entries: new Map(),
    tombstones: new Map(),
    links: new Map(),
    probes: new Map(),
    duties: new Map(),
    dials: new Map(),
    outgoingRecords: new Map(),
    outgoingAccusations: new Map(),
    accuserBuckets: new Map(),
    syncBuckets: new Map(),
    noteBucket: { tokens: limits.notesBurst, filledMs: 0 },
    ownBucket: { tokens: preset.ownBurst + preset.ownReserve, filledMs: 0 },
    gossipHeard: [],
    otherStarts: new Map(),
    facts: factsOf(self),
    factsSignedMs: 0,
    ownWaits: undefined,
    syncPartner: undefined,
    syncStartedMs: 0,
    syncRound: 0,
    nonce: 0,
    epochs: zero(),
    dueMs: zero(),
    viewVersion: 0,
    viewBuilt: undefined,
  };
}

function factsOf(record: NodeRecord): LocalFacts {
  const { health, maintenance, services, tags, load, settingsDigest } = record;
  return { health, maintenance, services, tags, load, settingsDigest };
}

export function selfEntry(core: Core): Entry {
  const entry = core.entries.get(core.selfId);
  if (entry === undefined) throw new Error('the own entry exists from the start');
  return entry;
}

export function newEntry(signed: SignedRecord, state: MemberState, nowMs: number): Entry {
  return {
    peerId: signed.record.peerId,
    signed,
    state,
    sinceMs: nowMs,
    heardMs: nowMs,
    accusations: new Map(),
    suspectedMs: 0,
    windowEndsMs: 0,
    goodbyeMs: Number.NEGATIVE_INFINITY,
    vouchedMs: 0,
    lastCalled: -1,
    member: undefined,
  };
}

/** All members that are not known for certain to be gone. */
export function isLiving(entry: Entry): boolean {
  switch (entry.state) {
    case 'alive':
    case 'suspect':
    case 'leaving':
      return true;
    case 'dead':
    case 'left':
      return false;
  }
}

export function isRestarting(core: Core, entry: Entry): boolean {
  return entry.windowEndsMs > core.nowMs;
}

export function send(core: Core, to: PeerId, message: Extract<Effect, { kind: 'send' }>['message']): void {
  core.effects.push({ kind: 'send', to, message });
}

export function schedule(core: Core, timer: Timer, afterMs: number): void {
  const wholeMs = Math.max(0, Math.ceil(afterMs));
  core.clockwork.expect(core.nowMs + wholeMs);
  core.effects.push({ kind: 'schedule', timer, afterMs: wholeMs });
}

type Periodic = keyof Core['epochs'];

/** A later call makes the timer of an earlier call stale. */
export function schedulePeriodic(core: Core, kind: Periodic, afterMs: number): void {
  core.epochs[kind] += 1;
  core.dueMs[kind] = core.nowMs + Math.max(0, afterMs);
  schedule(core, { kind, epoch: core.epochs[kind] }, afterMs);
}

export function note(core: Core, code: string, peer: PeerId | undefined, detail: string): void {
  if (!takeToken(core.noteBucket, limits.notesBurst, limits.notesPerSecond, core.nowMs)) return;
  core.effects.push({ kind: 'note', code, peer, detail });
}

export function nextNonce(core: Core): number {
  core.nonce += 1;
  return core.nonce;
}

/** Where to dial a peer: by its record, or before the first record by its certificate. */
function addressOf(core: Core, peer: PeerId): { address: string; port: number } | undefined {
  const record = core.entries.get(peer)?.signed.record;
  if (record !== undefined) return { address: record.address, port: record.port };
  const admitted = core.roster.get(peer);
  if (admitted === undefined) return undefined;
  const ports = core.options.ports ?? { app: 4101, db: 4103 };
  return { address: admitted.address, port: ports[admitted.role] };
}

export function connect(core: Core, peer: PeerId): void {
  const at = addressOf(core, peer);
  if (at !== undefined && peer !== core.selfId) core.effects.push({ kind: 'connect', peer, ...at });
}

export function withoutRule(core: Core, rule: Rule): boolean {
  return core.without.has(rule);
}
