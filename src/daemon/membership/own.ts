import { type Core, note, schedulePeriodic, selfEntry } from './core.ts';
import { tellLinks, tellRecord, withdraw } from './dissemination.ts';
import { limits, takeToken } from './limits.ts';
import type { Goodbye, LocalFacts, NodeRecord } from './types.ts';
import { changed, freezeRecord } from './view.ts';

/** This node's own record: it has one writer, so there is never a conflict, only a later version. */

type OwnChange = Partial<Pick<NodeRecord, 'incarnation' | 'status'>> & {
  readonly goodbye?: NodeRecord['goodbye'];
};

/** Signs and stores a new own record with the newest facts. */
function renew(core: Core, change: OwnChange, why: string): void {
  const entry = selfEntry(core);
  const { goodbye: _, ...old } = entry.signed.record;
  const { goodbye, ...rest } = change;
  const rises = change.incarnation !== undefined && change.incarnation > old.incarnation;
  const record: NodeRecord = {
    ...old,
    ...core.facts,
    ...rest,
    sequence: rises ? 0 : old.sequence + 1,
    ...(goodbye === undefined ? {} : { goodbye }),
  };
  freezeRecord(record);
  const was = entry.state;
  entry.signed = core.signer.record(record);
  if (was !== record.status) entry.sinceMs = core.nowMs;
  entry.state = record.status;
  core.factsSignedMs = core.nowMs;
  core.ownWaits = undefined;
  changed(core, entry, was, why);
}

/**
 * Combined: a burst of two, then one a second with all changes so far; one more at once for what decides about traffic.
 * A change of the load alone sends no message.
 */
export function takeFacts(core: Core, facts: LocalFacts): void {
  const cleaned = boundFacts(core, facts);
  if (cleaned === undefined) return;
  const differ = differs(cleaned, core.facts);
  if (!differ && cleaned.load === core.facts.load) return;
  if (decides(cleaned, core.facts)) core.ownWaits = 'traffic';
  else if (differ) core.ownWaits ??= 'other';
  core.facts = cleaned;
  publishFacts(core);
}

/** Called for each change and, while one waits, by the flush timer. */
export function publishFacts(core: Core): void {
  const { preset } = core;
  const entry = selfEntry(core);
  if (entry.state === 'left') return;
  if (core.ownWaits === undefined) {
    const loadIsOld = core.nowMs - core.factsSignedMs >= preset.loadIntervalMs;
    if (loadIsOld && entry.signed.record.load !== core.facts.load) renew(core, keeping(core), 'load changed');
    return;
  }
  const urgent = core.ownWaits === 'traffic';
  const { ownBurst, ownReserve, ownIntervalMs } = preset;
  const reserve = urgent ? 0 : ownReserve;
  if (takeToken(core.ownBucket, ownBurst + ownReserve, 1000 / ownIntervalMs, core.nowMs, reserve)) {
    renew(core, keeping(core), 'own facts changed');
    tellRecord(core, core.selfId, urgent ? 0 : preset.flushMs);
  } else if (core.dueMs.flush <= core.nowMs) {
    schedulePeriodic(core, 'flush', ownIntervalMs / 4);
  }
}

/** A change of facts does not take a goodbye back. */
function keeping(core: Core): OwnChange {
  const { goodbye } = selfEntry(core).signed.record;
  return goodbye === undefined ? {} : { goodbye };
}

function differs(one: LocalFacts, other: LocalFacts): boolean {
  return JSON.stringify({ ...one, load: 0 }) !== JSON.stringify({ ...other, load: 0 });
}

/** What other nodes send requests by; tags inform. */
function decides(one: LocalFacts, other: LocalFacts): boolean {
  const parts = ({ health, maintenance, services }: LocalFacts): string =>
    JSON.stringify([health, maintenance, services]);
  return parts(one) !== parts(other);
}

/** The daemon is trusted, but a record that others would refuse must not be signed. */
function boundFacts(core: Core, facts: LocalFacts): LocalFacts | undefined {
  const tags = Object.entries(facts.tags);
  const fits =
    facts.services.length <= limits.services &&
    tags.length <= limits.tags &&
    Number.isSafeInteger(facts.load) &&
    facts.load >= 0;
  if (!fits) {
    note(
      core,
      'local-facts-refused',
      core.selfId,
      'more services or tags than a record can hold, or a load out of range',
    );
    return undefined;
  }
  return { ...facts, services: facts.services.map((service) => ({ ...service })), tags: { ...facts.tags } };
}

/** The only answer to an accusation: a higher incarnation, at once. */
export function refute(core: Core, atLeast: number, why: string): void {
  const entry = selfEntry(core);
  if (core.without.has('refutation') || entry.signed.record.status === 'left') return;
  const incarnation = Math.max(entry.signed.record.incarnation, atLeast) + 1;
  if (incarnation > limits.incarnation) return note(core, 'incarnation-exhausted', core.selfId, why);
  renew(core, { ...keeping(core), incarnation, status: entry.signed.record.status }, why);
  entry.accusations.clear();
  withdraw(core, core.selfId);
  tellRecord(core, core.selfId, 0);
  tellLinks(core, entry.signed);
}

/** How long each goodbye delays the verdict: a stopped daemon or machine does not return by itself. */
function goodbyeWindowMs(core: Core, kind: Goodbye): number {
  switch (kind) {
    case 'restart':
      return core.preset.goodbyeWindowMs;
    case 'stop':
    case 'shutdown':
      return 0;
  }
}

export function sayGoodbye(core: Core, kind: Goodbye): void {
  const entry = selfEntry(core);
  if (entry.state === 'left') return;
  const windowMs = goodbyeWindowMs(core, kind);
  renew(core, { goodbye: { kind, windowMs } }, `goodbye: ${kind}`);
  tellRecord(core, core.selfId, 0);
  tellLinks(core, entry.signed);
}

export function leave(core: Core, status: 'leaving' | 'left'): void {
  const entry = selfEntry(core);
  if (entry.state === 'left' || entry.state === status) return;
  renew(core, { status }, status === 'leaving' ? 'asked to leave' : 'left');
  tellRecord(core, core.selfId, 0);
  tellLinks(core, entry.signed);
}

/**
 * A record under this node's key that this process did not sign: from an earlier life whose snapshot was lost, or from
 * a second machine with a copy of the key. An earlier life is answered once and never returns; a running clone answers
 * again.
 */
export function hearOwnRecord(core: Core, record: NodeRecord): void {
  const mine = selfEntry(core).signed.record;
  if (record.incarnation < mine.incarnation) return;
  if (record.startId === mine.startId) {
    if (record.incarnation > mine.incarnation) refute(core, record.incarnation, 'own record from the future');
    return;
  }
  const seen = core.otherStarts.get(record.startId);
  if (seen === undefined) {
    if (core.otherStarts.size >= limits.otherStarts) return;
    // A process that was there before our first sync started before us.
    core.otherStarts.set(record.startId, {
      earlier: !core.synced,
      answeredTo: record.incarnation,
      rounds: 0,
    });
    refute(core, record.incarnation, 'another start with this node’s key');
    return;
  }
  if (record.incarnation <= seen.answeredTo) return;
  seen.answeredTo = record.incarnation;
  seen.rounds += 1;
  resolveClone(core, record, seen);
}

/**
 * Clones that could not reach each other (e.g. with one address), or started together, see each other after their first
 * sync: then the ids decide. They rise with the time of the start, so that the later one ends.
 */
const ROUNDS_BEFORE_IDS_DECIDE = 3;

function resolveClone(core: Core, other: NodeRecord, seen: { earlier: boolean; rounds: number }): void {
  const mine = selfEntry(core).signed.record;
  const tied = seen.rounds >= ROUNDS_BEFORE_IDS_DECIDE;
  // One higher incarnation can be the echo of an earlier life from another partition; two are a process that answers.
  const mustStop = tied ? mine.startId > other.startId : seen.earlier && seen.rounds >= 2;
  if (seen.rounds === 2 || mustStop)
    core.effects.push({ kind: 'clone', otherStartId: other.startId, mustStop });
  if (mustStop) core.halted = true;
  else refute(core, other.incarnation, 'a clone of this node is alive');
}

/** A peer can only report alive, leaving or left about itself; this node bounds the window of its goodbye. */
export function honouredWindowMs(core: Core, record: NodeRecord): number {
  const asked = record.goodbye?.windowMs ?? 0;
  return Math.min(Math.max(0, asked), core.preset.goodbyeWindowMaxMs);
}
