import { type Core, type Entry, isRestarting, newEntry, note, schedule, withoutRule } from './core.ts';
import { discredit } from './credit.ts';
import { tellRecord, wasGossiped, withdraw } from './dissemination.ts';
import { limits } from './limits.ts';
import { hearOwnRecord, honouredWindowMs } from './own.ts';
import { decide, type Known, type Outcome } from './precedence.ts';
import type { MemberState, NodeRecord, SignedRecord } from './types.ts';
import { changed, freezeRecord, touch } from './view.ts';

/** The way a record came: gossip reaches everybody, a stream only us, a delta answers a sync. */
export type Way = 'gossip' | 'stream' | 'delta';

export function knownOf(core: Core, entry: Entry): Known {
  const { incarnation, sequence, startId } = entry.signed.record;
  return { state: entry.state, incarnation, sequence, startId, restarting: isRestarting(core, entry) };
}

/** Compares a verified record with the known state and stores it if it is newer. */
export function hearRecord(core: Core, signed: SignedRecord, way: Way): void {
  const { record } = signed;
  if (isHeld(core, record)) {
    // The most common case: several links bring the same record.
    if (way === 'gossip') wasGossiped(core, record.peerId);
    return;
  }
  const problem = problemOf(core, record);
  if (problem !== undefined) return note(core, problem.code, record.peerId, problem.detail);
  freezeRecord(record);
  if (record.peerId === core.selfId) return hearOwnRecord(core, record);
  const tombstone = core.tombstones.get(record.peerId);
  if (tombstone !== undefined && record.incarnation <= tombstone.incarnation) return;
  const entry = core.entries.get(record.peerId);
  if (way === 'gossip' && isNoOlder(record, entry)) wasGossiped(core, record.peerId);
  if (entry === undefined) introduce(core, signed, way);
  else update(core, entry, signed, way);
}

function isHeld(core: Core, record: NodeRecord): boolean {
  const held = core.entries.get(record.peerId)?.signed.record;
  return (
    held !== undefined &&
    !withoutRule(core, 'incarnation') &&
    record.peerId !== core.selfId &&
    held.incarnation === record.incarnation &&
    held.sequence === record.sequence &&
    held.startId === record.startId
  );
}

function isNoOlder(record: NodeRecord, entry: Entry | undefined): boolean {
  if (entry === undefined) return true;
  const held = entry.signed.record;
  if (record.incarnation !== held.incarnation) return record.incarnation > held.incarnation;
  return record.sequence >= held.sequence;
}

function introduce(core: Core, signed: SignedRecord, way: Way): void {
  const { record } = signed;
  if (core.entries.size >= limits.members)
    return note(core, 'too-many-members', record.peerId, `more than ${limits.members} members`);
  core.tombstones.delete(record.peerId);
  const entry = newEntry(signed, record.status, core.nowMs);
  core.entries.set(record.peerId, entry);
  if (record.status === 'alive' && record.goodbye !== undefined) openWindow(core, entry);
  changed(core, entry, undefined, 'new member');
  passOn(core, entry, way);
}

function update(core: Core, entry: Entry, signed: SignedRecord, way: Way): void {
  const before = entry.signed.record;
  const outcome = judge(core, entry, signed.record);
  if (!outcome.accepted) return;
  const was = entry.state;
  const news = was !== outcome.state || differsBeyondLoad(before, signed.record);
  entry.signed = signed;
  entry.heardMs = core.nowMs;
  // A new start does not prove its accusers wrong: they may have been right.
  if (outcome.absolved && was === 'suspect' && before.startId === signed.record.startId)
    discredit(core, entry.accusations.keys());
  if (outcome.absolved) absolve(core, entry);
  if (outcome.state !== was) entry.sinceMs = core.nowMs;
  entry.state = outcome.state;
  applyWindow(core, entry, outcome);
  if (news) {
    changed(core, entry, was, reasonOf(before, signed.record));
    passOn(core, entry, way);
  } else {
    touch(core, entry);
  }
}

function judge(core: Core, entry: Entry, record: NodeRecord): Outcome {
  const { incarnation, sequence, startId, status } = record;
  const goodbye = record.goodbye !== undefined;
  const claim = { kind: 'record', incarnation, sequence, startId, status, goodbye } as const;
  const outcome = decide(knownOf(core, entry), claim);
  if (!withoutRule(core, 'incarnation') || outcome.accepted) return outcome;
  return { accepted: true, state: record.status, window: 'keep', absolved: true };
}

export function absolve(core: Core, entry: Entry): void {
  entry.accusations.clear();
  entry.suspectedMs = 0;
  withdraw(core, entry.peerId);
}

function applyWindow(core: Core, entry: Entry, outcome: Outcome): void {
  switch (outcome.window) {
    case 'open':
      // A later record of the same goodbye neither opens a second window nor closes the first.
      if (entry.windowEndsMs <= core.nowMs) openWindow(core, entry);
      return;
    case 'close':
      entry.windowEndsMs = 0;
      return;
    case 'keep':
      return;
  }
}

/** Once in five minutes, and never longer than the preset's bound, whatever the record requests. */
function openWindow(core: Core, entry: Entry): void {
  const windowMs = honouredWindowMs(core, entry.signed.record);
  if (windowMs === 0) return;
  if (core.nowMs - entry.goodbyeMs < core.preset.goodbyeEveryMs)
    return note(core, 'goodbye-too-often', entry.peerId, 'its death verdict is not delayed again so soon');
  entry.goodbyeMs = core.nowMs;
  entry.windowEndsMs = core.nowMs + windowMs;
  const { incarnation } = entry.signed.record;
  schedule(core, { kind: 'restartWindow', epoch: 0, subject: entry.peerId, incarnation }, windowMs);
}

/** News that only this node got goes to all, unless another member is faster; all members know what gossip brought. */
function passOn(core: Core, entry: Entry, way: Way): void {
  if (way === 'gossip') return;
  const { flushMs } = core.preset;
  tellRecord(core, entry.peerId, core.random.between(3 * flushMs, 15 * flushMs));
}

function reasonOf(before: NodeRecord, now: NodeRecord): string {
  if (now.status === 'leaving') return 'is leaving';
  if (now.status === 'left') return 'has left';
  if (now.startId !== before.startId) return 'started again';
  if (now.incarnation > before.incarnation) return 'refuted';
  if (now.goodbye !== undefined && before.goodbye === undefined) return `goodbye: ${now.goodbye.kind}`;
  return 'changed its record';
}

function differsBeyondLoad(one: NodeRecord, other: NodeRecord): boolean {
  return (
    one.incarnation !== other.incarnation ||
    JSON.stringify({ ...one, load: 0, sequence: 0 }) !== JSON.stringify({ ...other, load: 0, sequence: 0 })
  );
}

function problemOf(core: Core, record: NodeRecord): { code: string; detail: string } | undefined {
  const admitted = core.roster.get(record.peerId);
  if (admitted === undefined) return { code: 'not-admitted', detail: `${record.name} is not on the roster` };
  if (admitted.name !== record.name || admitted.role !== record.role)
    return {
      code: 'name-differs',
      detail: `calls itself ${record.name}, was admitted as ${admitted.name}`,
    };
  if (!isInRange(record))
    return { code: 'record-out-of-range', detail: `${record.name} says impossible things` };
  return undefined;
}

export function isCount(value: unknown, most: number): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= most;
}

const STATUSES: ReadonlySet<string> = new Set<MemberState>(['alive', 'leaving', 'left']);

export function isInRange(record: NodeRecord): boolean {
  const { goodbye } = record;
  return (
    isCount(record.incarnation, limits.incarnation) &&
    isCount(record.sequence, limits.sequence) &&
    isCount(record.port, 65_535) &&
    record.port > 0 &&
    isCount(record.load, limits.load) &&
    STATUSES.has(record.status) &&
    record.name.length > 0 &&
    record.name.length <= limits.nameLength &&
    record.services.length <= limits.services &&
    Object.keys(record.tags).length <= limits.tags &&
    Object.entries(record.tags).every((tag) => tag.join('').length <= 2 * limits.tagBytes) &&
    (goodbye === undefined || isCount(goodbye.windowMs, Number.MAX_SAFE_INTEGER))
  );
}
